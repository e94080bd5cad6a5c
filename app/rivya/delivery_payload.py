"""Read the body of a delivery: which event, of what kind, about which generation. Nothing makes it fail."""

import hashlib
import re
from typing import Any, Final, Literal

import orjson

from app.core.records import value
from app.rivya.generation_payload import Generation, find_generation
from app.rivya.storable import is_storable, usable_name

GENERATION_EVENTS: Final = frozenset({"generation.succeeded", "generation.failed"})
_TEST_WORDS: Final = frozenset({"test", "ping"})
_BETWEEN_WORDS: Final = re.compile(r"[^a-z0-9]+")

Kind = Literal["generation", "test", "unknown_type", "unreadable"]


@value()
class DeliveryBody:
    """What a delivery says.

    `event_id` is always there: the event's own, else the one in the headers, else made from the bytes. A test carries
    no generation; an unknown type carries the one it mentions, for the record.
    """

    event_id: str
    kind: Kind
    event_type: str | None = None
    generation: Generation | None = None


def read_delivery(body: bytes, *, header_id: str | None) -> DeliveryBody:
    """Read a delivery's body. Never raises: what can't be understood is `unreadable`."""
    envelope = _parsed(body)
    generation = find_generation(envelope, is_clean=is_storable(body))
    # A body that is itself the generation has the generation's id, not the event's: two events would look like one.
    bare = generation is not None and generation.id == envelope.get("id")
    event_id = (None if bare else usable_name(envelope.get("id"))) or usable_name(header_id)
    event_type = envelope.get("type") or None
    kind = _kind(event_type if isinstance(event_type, str) else None, generation)
    return DeliveryBody(
        event_id=event_id or f"sha256:{hashlib.sha256(body).hexdigest()}",
        kind=kind,
        event_type=usable_name(event_type),
        generation=None if kind == "test" else generation,
    )


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


def _kind(event_type: str | None, generation: Generation | None) -> Kind:
    if event_type is None or event_type in GENERATION_EVENTS:
        return "unreadable" if generation is None else "generation"
    if not _TEST_WORDS.isdisjoint(_BETWEEN_WORDS.split(event_type.lower())):
        return "test"
    return "unknown_type"
