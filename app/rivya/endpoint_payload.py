"""Reads webhook endpoints: one, a list, and the secret that a response shows only once."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from app.rivya.payloads import PayloadUnreadable, list_items, read_iso, read_json, readable_text, usable_name

_ENVELOPES: Final = ("data", "endpoint", "webhook_endpoint", "webhook", "object")
_MORE_MARKS: Final = ("has_more", "hasMore", "next_cursor", "nextCursor", "next_page", "next")
_SECRET_PREFIX: Final = "whsec_"  # noqa: S105
_NOT_THE_NEW_SECRET: Final = ("preview", "previous", "old")


@dataclass(frozen=True, slots=True)
class WebhookEndpoint:
    """An endpoint as Rivya returns it. `secret` is set only by the response that shows it, and never in a repr."""

    id: str
    url: str
    name: str | None = None
    status: str | None = None
    event_types: tuple[str, ...] = ()
    secret: str | None = field(default=None, repr=False)
    failure_count: int = 0
    last_success_at: datetime | None = None
    last_failure_at: datetime | None = None
    created_at: datetime | None = None
    revoked_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class EndpointList:
    """The endpoints of an account. Unless `complete`, there may be others."""

    endpoints: tuple[WebhookEndpoint, ...]
    complete: bool


def read_endpoint(value: object) -> WebhookEndpoint:
    """The endpoint that a JSON value is, or that it has in an envelope. Raises PayloadUnreadable."""
    members = _endpoint_members(value)
    return WebhookEndpoint(
        id=members["id"],
        url=members["url"],
        name=readable_text(members.get("name")),
        status=usable_name(members.get("status")),
        event_types=_texts(members.get("event_types")),
        secret=find_secret(value),
        failure_count=_count(members.get("failure_count")),
        last_success_at=read_iso(members.get("last_success_at")),
        last_failure_at=read_iso(members.get("last_failure_at")),
        created_at=read_iso(members.get("created_at")),
        revoked_at=read_iso(members.get("revoked_at")),
    )


def read_rotation(body: bytes, endpoint_id: str) -> WebhookEndpoint:
    """The endpoint with its new secret. Raises PayloadUnreadable, also for the secret of another endpoint.

    The shape of this response isn't documented: if it has a secret but no endpoint, the secret is
    returned all the same, with an empty URL.
    """
    value = read_json(body)
    secret = find_secret(value)
    if secret is None:
        raise PayloadUnreadable("no secret")
    try:
        endpoint = read_endpoint(value)
    except PayloadUnreadable:
        return WebhookEndpoint(id=endpoint_id, url="", secret=secret)
    if endpoint.id != endpoint_id:
        raise PayloadUnreadable("about another endpoint")
    return endpoint


def read_endpoint_list(body: bytes) -> EndpointList:
    """The endpoints of a list response. Raises PayloadUnreadable: it is then unknown which exist."""
    value = read_json(body)
    items = list_items(value)
    return EndpointList(tuple(read_endpoint(item) for item in items), complete=_is_complete(value, len(items)))


def find_secret(value: object) -> str | None:
    """The signing secret in a response, or None.

    For a create it is documented as `signing_secret`. The response to a rotation is not documented, and the
    secret is shown only once: any member with "secret" in its name and a new secret as its value is accepted.
    """
    members = [(name.lower(), text) for name, text in _texts_within(value, levels=3) if "secret" in name.lower()]
    for name, text in members:
        if name == "signing_secret":
            return text
    return next((text for name, text in members if _is_new_secret(name, text)), None)


def _endpoint_members(value: object) -> dict[str, Any]:
    candidates = [value, *(value.get(name) for name in _ENVELOPES)] if isinstance(value, dict) else []
    for candidate in candidates:
        if isinstance(candidate, dict) and usable_name(candidate.get("id")) and readable_text(candidate.get("url")):
            return candidate
    raise PayloadUnreadable("no endpoint with an id and a URL")


def _texts_within(value: object, *, levels: int) -> Iterator[tuple[str, str]]:
    """The names and values of all text members, outer ones before those in envelopes."""
    if not isinstance(value, dict) or levels == 0:
        return
    yield from ((name, text) for name, text in value.items() if isinstance(text, str) and text)
    for name in _ENVELOPES:
        yield from _texts_within(value.get(name), levels=levels - 1)


def _is_new_secret(name: str, text: str) -> bool:
    other = any(word in name for word in _NOT_THE_NEW_SECRET)
    return text.startswith(_SECRET_PREFIX) and "..." not in text and not other


def _texts(value: object) -> tuple[str, ...]:
    return tuple(text for text in value if isinstance(text, str)) if isinstance(value, list) else ()


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _is_complete(value: object, count: int) -> bool:
    if not isinstance(value, dict):
        return True
    total = max(_count(value.get("total")), _count(value.get("total_count")))
    return not any(value.get(mark) for mark in _MORE_MARKS) and total <= count
