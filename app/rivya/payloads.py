"""Reads the bodies that Rivya sends: generations, deliveries, models and credits; makes their values safe to store."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final, Literal

import orjson

from app.core.models import Claim, hot_dataclass
from app.core.records import dump_json, json_object, parse_json

LONGEST_NAME: Final = 200
LONGEST_ID: Final = 500
_MOST_ID_BYTES: Final = 1200  # an index of PostgreSQL holds entries of 2,700 bytes
LONGEST_REFERENCE: Final = 500
MOST_METADATA_BYTES: Final = 16 * 1024
_MOST_LEVELS: Final = 200  # orjson writes 254 levels; the rest is for objects into which a value is put later
_LARGEST_AMOUNT: Final = 10**12
_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")


def usable_name(value: object) -> str | None:
    """A text fit to be a name (printable, neither blank nor longer than `LONGEST_NAME`), or None."""
    if not isinstance(value, str) or len(value) > LONGEST_NAME or not value.isprintable() or not value.strip():
        return None
    return value


def usable_id(value: object) -> str | None:
    """A text fit to be an id (printable, neither blank nor longer than `LONGEST_ID`), or None."""
    if not isinstance(value, str) or len(value) > LONGEST_ID or not value.isprintable() or not value.strip():
        return None
    return value if len(value) <= LONGEST_NAME or len(value.encode()) <= _MOST_ID_BYTES else None


def usable_reference(value: object) -> str | None:
    """A text that must be returned unchanged (storable, neither empty nor too long), or None."""
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_REFERENCE or _UNSTORABLE.search(value):
        return None
    return value


def readable_text(value: object) -> str | None:
    """A text for people, cut to length, with U+FFFD for what can't be stored; None for any other type."""
    return _UNSTORABLE.sub("\ufffd", value[:LONGEST_REFERENCE]) if isinstance(value, str) else None


def plausible_amount(value: object) -> float | int | None:
    """A number of credits, or None for anything that isn't a number of a credible size."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _LARGEST_AMOUNT:
        return None
    return value


def storable(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """A JSON value in a form that every database and orjson can store; the same object if nothing changes.

    NUL and lone surrogates become U+FFFD, what is nested deeper than 200 levels becomes null.
    """
    try:
        text = dump_json(value)
    except (TypeError, ValueError, RecursionError):
        return _cleaned(value, _MOST_LEVELS)
    return value if is_storable(text) else _cleaned(value, _MOST_LEVELS)


def checked_metadata(value: dict[str, Any]) -> dict[str, Any]:
    """`value`, a caller's metadata for a generation, if it can be stored unchanged. Raises `ValueError`."""
    if storable(value) != value:
        message = "must not contain NUL, nor nest more than 200 levels"
        raise ValueError(message)
    if len(dump_json(value)) > MOST_METADATA_BYTES:
        message = f"must be at most {MOST_METADATA_BYTES} bytes as JSON"
        raise ValueError(message)
    return value


def is_storable(text: bytes) -> bool:
    """Whether the value of a JSON text can certainly be stored unchanged."""
    return rb"\u0000" not in text and text.count(b"{") + text.count(b"[") <= _MOST_LEVELS


def _cleaned(value: Any, levels: int) -> Any:  # noqa: ANN401
    if isinstance(value, str):
        return _UNSTORABLE.sub("\ufffd", value)
    if not isinstance(value, dict | list):
        return value
    if levels == 0:
        return None
    if isinstance(value, list):
        return [_cleaned(member, levels - 1) for member in value]
    return {_cleaned(name, 0): _cleaned(member, levels - 1) for name, member in value.items()}


_NUMBER: Final = re.compile(rb"\d{1,14}(?:\.\d{1,9})?")
_MILLISECONDS_FROM: Final = 1e11  # as seconds, that is the year 5138
_LONGEST: Final = 64
_YEARS: Final = range(1970, 3000)


def read_iso(text: object) -> datetime | None:
    """The UTC time in an ISO 8601 text, or None. A time without an offset is taken as UTC.

    Years outside 1970 to 2999 give None: arithmetic on them would overflow later.
    """
    if not isinstance(text, str) or len(text) > _LONGEST:
        return None
    try:
        time = datetime.fromisoformat(text)
        if time.tzinfo is not UTC:  # which is what a final Z becomes
            time = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return time if time.year in _YEARS else None


def read_unix_seconds(text: bytes) -> float | None:
    """A signature's timestamp in Unix seconds, or None unless it is Unix seconds, milliseconds or ISO 8601."""
    if _NUMBER.fullmatch(text):
        return unix_seconds(text)
    time = read_iso(text.decode("ascii", "replace"))
    return None if time is None else time.timestamp()


def unix_seconds(digits: bytes) -> float:
    """The seconds in a number of seconds, or of milliseconds where it is that large."""
    number = float(digits)
    return number if number < _MILLISECONDS_FROM else number / 1000


class PayloadUnreadable(ValueError):
    """A body can't be read. Its content is unknown, which is not the same as empty."""


def read_json(body: bytes) -> Any:  # noqa: ANN401 - any JSON value
    """The JSON value of a body. Raises PayloadUnreadable."""
    try:
        return parse_json(body)
    except orjson.JSONDecodeError:
        raise PayloadUnreadable("not JSON") from None


def list_items(value: object) -> list[Any]:
    """The items of `{"object": "list", "data": […]}` or of a bare array. Raises PayloadUnreadable."""
    if isinstance(value, list):
        return value
    if isinstance(value, dict) and value.get("object", "list") == "list" and isinstance(value.get("data"), list):
        items: list[Any] = value["data"]
        return items
    raise PayloadUnreadable("not a list")


STATUSES: Final = frozenset({"queued", "processing", "succeeded", "failed"})

_PLACES: Final = (("data",), ("data", "object"), ("data", "generation"), ("generation",))
_TYPICAL_MEMBERS: Final = ("model", "reserved_credits", "final_credits", "result")
_OTHER_THINGS: Final = ("evt_", "whend_")
_DEEPEST_SEARCHED: Final = 8
_MOST_NODES: Final = 2000


def read_generation(body: bytes) -> Claim:
    """The generation in a response to a status or create call. Raises PayloadUnreadable."""
    value = read_json(body)
    # The documented place in a response is the top; an envelope comes second.
    is_clean = is_storable(body)
    if _is_generation(value) and not _is_event(value):
        return _as_generation(value, is_clean=is_clean)
    generation = find_generation(value, is_clean=is_clean)
    if generation is None:
        raise PayloadUnreadable("no object with an id and one of the four statuses")
    return generation


def find_generation(value: object, *, is_clean: bool = False) -> Claim | None:
    """The generation in a JSON value, searched by shape: an object with an id and one of the four statuses.

    The likely places come first, then the shallowest object that looks like a generation, last one that looks like
    an event. The search is bounded in depth and number of nodes. `is_clean`: the value comes from a text
    that `is_storable`.
    """
    for place in _PLACES:
        candidate = _at(value, place)
        if _is_generation(candidate) and not _is_event(candidate):
            return _as_generation(candidate, is_clean=is_clean)
    candidates = [node for node in _nodes(value) if _is_generation(node)]
    best = max(candidates, key=_likeness, default=None)  # the first, hence the shallowest, of equals
    return None if best is None else _as_generation(best, is_clean=is_clean)


def generation_place(value: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The names of the members that lead to the generation in the body of a delivery; None if it is in no usual place.

    Those that are searched first, then any member of the body.
    """
    for place in (*_PLACES, *((name,) for name in value)):
        candidate = _at(value, place)
        if _is_generation(candidate) and not _is_event(candidate):
            return place
    return None


def _at(value: object, place: tuple[str, ...]) -> Any:  # noqa: ANN401
    for name in place:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _nodes(value: object) -> Iterator[Any]:
    """The objects in a JSON value, shallowest first."""
    level, count = [value], 0
    for _ in range(_DEEPEST_SEARCHED):
        following: list[object] = []
        for node in level[: _MOST_NODES - count]:
            count += 1
            if isinstance(node, dict):
                yield node
                following.extend(member for member in node.values() if isinstance(member, dict | list))
            elif isinstance(node, list):
                following.extend(member for member in node if isinstance(member, dict | list))
        level = following


def _is_generation(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    status, identity = value.get("status"), usable_id(value.get("id"))
    if identity is None or identity.startswith(_OTHER_THINGS):
        return False
    return isinstance(status, str) and status in STATUSES


def _is_event(value: dict[str, Any]) -> bool:
    kind = value.get("type")
    return isinstance(kind, str) and ("." in kind or "api_version" in value)


def _likeness(value: dict[str, Any]) -> int:
    if _is_event(value):
        return 0
    return 2 if any(member in value for member in _TYPICAL_MEMBERS) else 1


def _as_generation(value: dict[str, Any], *, is_clean: bool) -> Claim:
    return Claim(
        id=value["id"],
        status=value["status"],
        model=usable_name(value.get("model")),
        reserved_credits=plausible_amount(value.get("reserved_credits")),
        final_credits=plausible_amount(value.get("final_credits")),
        created_at=read_iso(value.get("created_at")),
        updated_at=read_iso(value.get("updated_at")),
        client_request_id=usable_reference(value.get("client_request_id")),
        object=value if is_clean else storable(value),
    )


GENERATION_EVENTS: Final = frozenset({"generation.succeeded", "generation.failed"})
_TEST_WORDS: Final = frozenset({"test", "ping"})
_BETWEEN_WORDS: Final = re.compile(r"[^a-z0-9]+")

Kind = Literal["generation", "test", "unknown_type", "unreadable"]


@hot_dataclass()
class DeliveryBody:
    """The content of a delivery.

    `event_id` is always set: the event's own, else the one in the headers, else a hash of the body. A test has no
    generation; an event of unknown type has the one that its body mentions.
    """

    event_id: str
    kind: Kind
    event_type: str | None = None
    generation: Claim | None = None


def read_delivery(body: bytes, *, header_id: str | None) -> DeliveryBody:
    """The content of a delivery's body. Never raises: what can't be read is of kind `unreadable`."""
    envelope = json_object(body) or {}
    generation = find_generation(envelope, is_clean=is_storable(body))
    # A body that is itself the generation has the generation's id, not the event's: its two events would look like one.
    bare = generation is not None and generation.id == envelope.get("id")
    event_id = (None if bare else usable_id(envelope.get("id"))) or usable_id(header_id)
    event_type = envelope.get("type") or None
    kind = _kind(event_type if isinstance(event_type, str) else None, generation)
    return DeliveryBody(
        event_id=event_id or f"sha256:{hashlib.sha256(body).hexdigest()}",
        kind=kind,
        event_type=usable_name(event_type),
        generation=None if kind == "test" else generation,
    )


def _kind(event_type: str | None, generation: Claim | None) -> Kind:
    if event_type is None or event_type in GENERATION_EVENTS:
        return "unreadable" if generation is None else "generation"
    if not _TEST_WORDS.isdisjoint(_BETWEEN_WORDS.split(event_type.lower())):
        return "test"
    return "unknown_type"


def read_models(body: bytes) -> dict[str, str]:
    """The category of each model by its id; entries without both are left out. Raises PayloadUnreadable."""
    items = [item for item in list_items(read_json(body)) if isinstance(item, dict)]
    pairs = ((usable_name(item.get("id")), usable_name(item.get("category"))) for item in items)
    return {model: category for model, category in pairs if model and category}


def read_credits(body: bytes) -> Decimal:
    """The account's current credits. Raises PayloadUnreadable."""
    amount = plausible_amount((json_object(body) or {}).get("current_credits"))
    if amount is None:
        raise PayloadUnreadable("no current_credits")
    return Decimal(str(amount))
