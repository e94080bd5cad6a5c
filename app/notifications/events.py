"""What is sent to programs: the body of an event, and the headers that sign it; pure.

The body is Rivya's own bytes where it delivered, else made in the same envelope. Each notification is signed twice, so
that either verifier accepts it: in the scheme that was proven for Rivya's own deliveries, and by the Standard Webhooks
specification.
"""

import hashlib
import hmac
import re
import secrets as random
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from app.core.records import dump_json, json_object
from app.ledger.models import Generation, Transition
from app.ledger.serializers import format_time
from app.notifications.models import API_VERSION, EventType
from app.rivya import signature
from app.rivya.payloads import generation_place
from app.rivya.schemes import Family, Scheme, parse_scheme

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


OVERLAP: Final = timedelta(hours=72)
"""For so long after a rotation the old secret signs too."""
_PREFIX: Final = "whsec_"
_STANDARD: Final = parse_scheme("standard-webhooks;key=base64;encoding=base64")


def new_secret() -> str:
    """A new secret. Its 64 hex digits are valid base64 too, so that every way to derive a key from it works."""
    return _PREFIX + random.token_hex(32)


def callback_secret(master: str, token_name: str) -> str:
    """The secret that signs the callbacks of one token, whose name is never used again."""
    return _PREFIX + hmac.digest(master.encode(), b"callback:" + token_name.encode(), hashlib.sha256).hex()


def preview(secret: str) -> str:
    """Enough of a secret to recognise it: `whsec_12...abc123`."""
    return f"{secret[:8]}...{secret[-6:]}"


def valid_secrets(secret: str, previous: str | None, rotated_at: datetime | None, now: datetime) -> tuple[str, ...]:
    """The secrets that sign at `now`, the newest first."""
    if previous is None or rotated_at is None or now >= rotated_at + OVERLAP:
        return (secret,)
    return secret, previous


def sign(body: bytes, secrets: Sequence[str], *, event_id: str, now: datetime, scheme: Scheme | None) -> dict[str, str]:
    """The headers that sign the body; names in lower case. `secrets`: those valid now, the newest first.

    `scheme`: the one proven for Rivya's deliveries, None while none is. Where its family has no way to write more than
    one signature, only the newest secret signs in it. If it shares a header with the specification, that header has the
    signatures of both.
    """
    standard = _headers(_STANDARD, body, secrets, event_id=event_id, now=now)
    if scheme is None:
        return standard
    headers = _headers(scheme, body, secrets, event_id=event_id, now=now)
    shared = headers.get(_STANDARD.signature_header)
    if shared is not None and shared != standard[_STANDARD.signature_header]:
        standard[_STANDARD.signature_header] += f" {shared}"
    return headers | standard


def _headers(scheme: Scheme, body: bytes, secrets: Sequence[str], *, event_id: str, now: datetime) -> dict[str, str]:
    signed = [dict(signature.sign(scheme, secret, body, timestamp=now, event_id=event_id)) for secret in secrets]
    values = [headers[scheme.signature_header] for headers in signed]
    if scheme.family is Family.TIMESTAMPED:
        values = [",".join([values[0], *(value.rpartition(",")[2] for value in values[1:])])]
    elif scheme.family is Family.STANDARD_WEBHOOKS:
        values = [" ".join(values)]
    return signed[0] | {scheme.signature_header: values[0]}
