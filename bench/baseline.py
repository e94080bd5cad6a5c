"""The plain way, to compare with: a FastAPI route, one SQLAlchemy transaction per request, the same writes.

Run as a program it serves on the port given, on the database of DATABASE_URL; `python -m bench.baseline PORT`.
"""

import hashlib
import hmac
import os
import sys
from datetime import UTC, datetime
from typing import Any

import uvicorn
from fastapi import FastAPI, HTTPException, Request
from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import create_async_engine

from app.ledger.tables import deliveries, generations, polls, transitions
from bench.events import PATH, SECRET


def make(url: str) -> FastAPI:
    """An application that does what intake does, as one would write it first."""
    engine = create_async_engine(url, pool_size=20)
    app = FastAPI()

    @app.post(PATH)
    async def deliver(request: Request) -> dict[str, bool]:
        body = await request.body()
        _verify(request.headers.get("rivya-signature", ""), body)
        event = await request.json()
        generation, now = event["data"], datetime.now(UTC)
        async with engine.begin() as connection:
            chosen = generations.c.id == generation["id"]
            stored = (await connection.execute(select(generations).where(chosen).with_for_update())).first()
            values = _generation(generation, body, now, number=1 if stored is None else stored.last_number + 1)
            write = insert(generations) if stored is None else update(generations).where(chosen)
            await connection.execute(write.values(**values))
            await connection.execute(delete(polls).where(polls.c.generation_id == generation["id"]))
            await connection.execute(insert(deliveries).values(**_delivery(event, generation, body, now)))
            await connection.execute(insert(transitions).values(**_transition(event, generation, values, stored)))
        return {"received": True}

    return app


def _verify(header: str, body: bytes) -> None:
    parts = dict(part.partition("=")[::2] for part in header.split(","))
    expected = hmac.new(SECRET.encode(), f"{parts.get('t', '')}.".encode() + body, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(expected, parts.get("v1", "")):
        raise HTTPException(401)


def _delivery(event: dict[str, Any], generation: dict[str, Any], body: bytes, now: datetime) -> dict[str, Any]:
    return {
        "event_id": event["id"],
        "event_type": event["type"],
        "generation_id": generation["id"],
        "received_at": now,
        "body": body,
        "headers": "{}",
        "outcome": "applied",
        "attempts": 1,
    }


def _generation(generation: dict[str, Any], body: bytes, now: datetime, *, number: int) -> dict[str, Any]:
    return {
        "id": generation["id"],
        "status": generation["status"],
        "model": generation["model"],
        "rivya_object": body.decode(),
        "reserved_credits": generation["reserved_credits"],
        "final_credits": generation["final_credits"],
        "created_at": datetime.fromisoformat(generation["created_at"]),
        "updated_at": datetime.fromisoformat(generation["updated_at"]),
        "first_seen_at": now,
        "settled_at": now,
        "failed_at": now if generation["status"] == "failed" else None,
        "settled_by": "webhook",
        "callback_received_at": now,
        "last_number": number,
        "revision": number,
        "polls": 0,
    }


def _transition(
    event: dict[str, Any],
    generation: dict[str, Any],
    values: dict[str, Any],
    stored: Any,  # noqa: ANN401 - a row
) -> dict[str, Any]:
    return {
        "generation_id": generation["id"],
        "number": values["last_number"],
        "from_status": None if stored is None else stored.status,
        "to_status": generation["status"],
        "source": "webhook",
        "event_id": event["id"],
        "recorded_at": values["settled_at"],
    }


if __name__ == "__main__":
    uvicorn.run(
        make(os.environ["DATABASE_URL"]),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        log_config=None,
        access_log=False,
        loop="uvloop",
        http="httptools",
    )
