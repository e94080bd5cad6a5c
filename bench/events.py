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
REPEATED = 500
"""Requests between a delivery and its repetition: it is answered long before."""


@dataclass(frozen=True, slots=True)
class Events:
    """Requests, and what is in them, in the same order."""

    requests: Sequence[bytes]
    event_ids: Sequence[str]
    generation_ids: Sequence[str]
    transitions: Sequence[int]
    """How many the generation has after the event."""


def make(run: str, count: int) -> Events:
    """`count` deliveries that settle `count` unknown generations; `run` makes their ids this run's own."""
    return about(run, [f"task_{run}_{number:07d}" for number in range(count)])


def about(run: str, generation_ids: Sequence[str], *, failed_each: int = 0, is_known: bool = False) -> Events:
    """A delivery for each of these generations, of which each `failed_each`th has failed."""
    event_ids = [f"evt_{run}_{number:07d}" for number in range(len(generation_ids))]
    scheme, now = parse_scheme("timestamped"), datetime.now(UTC)
    requests = []
    for number, (event_id, generation_id) in enumerate(zip(event_ids, generation_ids, strict=True)):
        is_failed = failed_each > 0 and number % failed_each == 0
        body = _body(event_id, failed(generation_id) if is_failed else settled(generation_id))
        [(name, value)] = sign(scheme, SECRET, body, timestamp=now, event_id=event_id)
        requests.append(_request(body, name, value))
    return Events(requests, event_ids, generation_ids, [1 + is_known] * len(requests))


def mixed(run: str, known_ids: Sequence[str]) -> Events:
    """Of ten deliveries eight are for known generations, one is for an unknown one, and one is a repetition."""
    known = about(run, known_ids, failed_each=8, is_known=True)
    unknown = make(f"{run}u", len(known_ids) // 4)
    merged = Events([], [], [], [])
    count = len(known_ids) // 8 * 10
    for number in range(count):
        tens, digit = divmod(number, 10)
        source, place = (known, 8 * tens + digit) if digit < 8 else (unknown, 2 * tens + digit - 8)
        if digit == 9 and number > REPEATED:
            source, place = merged, number - REPEATED - 2
        for values, new in zip(_columns(merged), _columns(source), strict=True):
            values.append(new[place])
    return merged


def known_among(sent: int) -> int:
    """How many known generations the first `sent` requests of `mixed` were for."""
    return sent // 10 * 8 + min(sent % 10, 8)


def _columns(events: Events) -> tuple[Any, ...]:
    return events.requests, events.event_ids, events.generation_ids, events.transitions


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


def failed(generation_id: str) -> dict[str, Any]:
    """A generation that failed, as Rivya writes it."""
    error = {"code": "provider_error", "message": "The provider could not make this."}
    changes = {"status": "failed", "final_credits": 0, "result": None, "error": error}
    return {**settled(generation_id), **changes}


def _body(event_id: str, generation: dict[str, Any]) -> bytes:
    return orjson.dumps(
        {
            "id": event_id,
            "type": f"generation.{generation['status']}",
            "api_version": "2026-05-11",
            "created_at": "2026-05-11T00:01:00.000Z",
            "data": generation,
        }
    )


def _request(body: bytes, header: str, signature: str) -> bytes:
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: receiver.example\r\nUser-Agent: Rivya-Webhooks/1.0\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n{header}: {signature}\r\n\r\n"
    )
    return head.encode() + body
