"""How an endpoint at Rivya differs from the one that is wanted; pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from app.endpoint.callback_url import is_same_place
from app.rivya.endpoint_payload import WebhookEndpoint

NAME: Final = "rivya-receiver"
EVENT_TYPES: Final = ("generation.succeeded", "generation.failed")


@dataclass(frozen=True, slots=True)
class Difference:
    """One field that is not as wanted, and the value that makes it so."""

    field: str
    wanted: Any


def differences(told: WebhookEndpoint, *, url: str) -> list[Difference]:
    """Every field that has to change, `status` first; a field that Rivya doesn't tell is taken to be right."""
    found = []
    if told.status is not None and told.status != "active":
        found.append(Difference("status", "active"))
    if told.url and not is_same_place(told.url, url):
        found.append(Difference("url", url))
    if told.event_types and set(told.event_types) != set(EVENT_TYPES):
        found.append(Difference("event_types", list(EVENT_TYPES)))
    return found


def repaired(told: WebhookEndpoint | None, found: Sequence[Difference], *, url: str) -> bool:
    """None of the differences is there any more."""
    return told is not None and not {one.field for one in differences(told, url=url)} & {one.field for one in found}
