"""The bodies of notifications: Rivya's own bytes where it delivered, else the same envelope. Pure."""

import hashlib
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from app.core.records import dump_json
from app.ledger.models import Generation, Transition
from app.ledger.serializers import format_time
from app.notifications.models import API_VERSION, EventType
from app.rivya.payloads import generation_place, json_object

_HEADER_SAFE: Final = re.compile(r"[A-Za-z0-9_.-]{1,200}")
_USUAL_PLACE: Final = ("data",)
_MEMBERS: Final = (
    *("id", "status", "model", "reserved_credits", "final_credits", "created_at", "updated_at", "result", "error"),
)
_OF_THE_OUTCOME: Final = ("final_credits", "result", "error")


def own_event_id(*parts: object) -> str:
    """An event id of ours, always the same for the same parts."""
    text = "\x00".join(map(str, parts))
    return f"evt_{hashlib.blake2b(text.encode(), digest_size=12).hexdigest()}"


def is_deliverable(event_id: str, body: bytes) -> bool:
    """Whether Rivya's bytes can be passed on: the event has an id for a header, and it is the one in its body."""
    if not body or not _HEADER_SAFE.fullmatch(event_id):
        return False
    return bool((json_object(body) or {}).get("id", event_id) == event_id)


def event_body(transition: Transition, generation: Generation, *, event_id: str, like: bytes | None) -> bytes:
    """The body of a transition that no delivery brought, in the envelope of the delivery `like`."""
    claim = dict.fromkeys(_MEMBERS) | {"model": generation.model} | dict(generation.rivya_object)
    claim |= {"id": generation.id, "status": transition.to_status}
    if not transition.to_status.is_terminal:
        claim |= dict.fromkeys(_OF_THE_OUTCOME)  # which the generation may have by now
    example = json_object(like or b"") or {}
    place = generation_place(example) or _USUAL_PLACE
    version = example.get("api_version")
    head = _head(event_id, f"generation.{transition.to_status}", transition.recorded_at)
    if isinstance(version, str):
        head["api_version"] = version
    carried: Any = claim
    for member in reversed(place):
        carried = {member: carried}
    return dump_json({**head, **carried})


def other_body(event_id: str, event_type: str, at: datetime, data: Mapping[str, Any]) -> bytes:
    """The body of an event that is not about a generation."""
    return dump_json({**_head(event_id, event_type, at), "data": data})


def alarm_body(
    event_id: str,
    at: datetime,
    *,
    alarm: str,
    is_raised: bool,
    value: float,
    threshold: float,
    endpoint_id: str | None = None,
) -> bytes:
    """The body of an alarm that is raised or cleared, of one endpoint or of the service."""
    data = {"object": "alarm", "alarm": alarm, "raised": is_raised, "value": round(value, 3), "threshold": threshold}
    if endpoint_id is not None:
        data["endpoint_id"] = endpoint_id
    return other_body(event_id, EventType.ALARM, at, data)


def _head(event_id: str, event_type: str, at: datetime) -> dict[str, Any]:
    return {"id": event_id, "type": event_type, "api_version": API_VERSION, "created_at": format_time(at)}
