"""The plain way, to compare with: a FastAPI route, one SQLAlchemy transaction per request, the same three writes.

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
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import create_async_engine

from app.ledger.tables import deliveries, generations, transitions
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
            await connection.execute(insert(deliveries).values(**_delivery(event, generation, body, now)))
            await connection.execute(insert(generations).values(**_generation(generation, body, now)))
            await connection.execute(insert(transitions).values(**_transition(event, generation, now)))
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


def _generation(generation: dict[str, Any], body: bytes, now: datetime) -> dict[str, Any]:
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
        "settled_by": "webhook",
        "callback_received_at": now,
        "last_number": 1,
        "revision": 1,
        "polls": 0,
    }


def _transition(event: dict[str, Any], generation: dict[str, Any], now: datetime) -> dict[str, Any]:
    return {
        "generation_id": generation["id"],
        "number": 1,
        "to_status": generation["status"],
        "source": "webhook",
        "event_id": event["id"],
        "recorded_at": now,
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
