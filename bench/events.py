"""Signed events, made before they are sent: each its own event about its own generation, as large as Rivya's."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from app.rivya.schemes import parse_scheme
from app.rivya.signature import sign

SECRET = "whsec_0123456789abcdef0123456789abcdef"  # noqa: S105 - known to nobody but this run
PATH = "/rivya/webhook"


@dataclass(frozen=True, slots=True)
class Events:
    """Requests, and the ids in them, in the same order."""

    requests: Sequence[bytes]
    event_ids: Sequence[str]
    generation_ids: Sequence[str]


def make(run: str, count: int) -> Events:
    """`count` deliveries that settle `count` generations; `run` makes their ids this run's own."""
    generations = [f"task_{run}_{number:07d}" for number in range(count)]
    events = [f"evt_{run}_{number:07d}" for number in range(count)]
    scheme, now = parse_scheme("timestamped"), datetime.now(UTC)
    requests = []
    for event_id, generation_id in zip(events, generations, strict=True):
        body = _body(event_id, generation_id)
        [(name, value)] = sign(scheme, SECRET, body, timestamp=now, event_id=event_id)
        requests.append(_request(body, name, value))
    return Events(requests, events, generations)


def settled(generation_id: str) -> dict[str, Any]:
    """A generation that succeeded, as Rivya writes it."""
    url = f"https://media.example/results/{generation_id}.png"
    return {
        "id": generation_id,
        "status": "succeeded",
        "model": "z-image",
        "reserved_credits": 1,
        "final_credits": 1,
        "created_at": "2026-05-11T00:00:00.000Z",
        "updated_at": "2026-05-11T00:01:00.000Z",
        "result": {"primary_url": url, "urls": [url]},
        "error": None,
    }


def _body(event_id: str, generation_id: str) -> bytes:
    return orjson.dumps(
        {
            "id": event_id,
            "type": "generation.succeeded",
            "api_version": "2026-05-11",
            "created_at": "2026-05-11T00:01:00.000Z",
            "data": settled(generation_id),
        }
    )


def _request(body: bytes, header: str, signature: str) -> bytes:
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: receiver.example\r\nUser-Agent: Rivya-Webhooks/1.0\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n{header}: {signature}\r\n\r\n"
    )
    return head.encode() + body
