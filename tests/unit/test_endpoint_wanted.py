"""What is not as wanted at Rivya is told field by field; what Rivya doesn't tell is taken to be right."""

from typing import Any

import pytest

from app.endpoint.inspection import EVENT_TYPES, Difference, differences, repaired
from app.rivya.endpoint_payload import WebhookEndpoint

URL = "https://receiver.example.com/rivya/webhook/0a1b"


def told(**members: Any) -> WebhookEndpoint:
    return WebhookEndpoint(**{"id": "whend_1", "url": URL, "status": "active", "event_types": EVENT_TYPES, **members})


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"status": None},
        {"event_types": ()},
        {"event_types": tuple(reversed(EVENT_TYPES))},
        {"url": f"{URL.upper()}/"},
        {"url": ""},
        {"url": URL.replace(".com", ".com:443")},
    ],
)
def test_the_same_in_other_words_is_no_difference(members: dict[str, Any]) -> None:
    assert differences(told(**members), url=URL) == []


def test_each_field_that_differs_is_told_with_what_is_wanted() -> None:
    found = differences(told(status="disabled", url="https://a.example/x", event_types=("generation.failed",)), url=URL)
    assert found == [
        Difference("status", "active"),
        Difference("url", URL),
        Difference("event_types", list(EVENT_TYPES)),
    ]


def test_a_repair_counts_only_when_rivya_shows_it() -> None:
    found = [Difference("status", "active")]
    assert repaired(told(), found, url=URL)
    assert repaired(told(url="https://a.example/x"), found, url=URL)  # another field is another matter
    assert not repaired(told(status="disabled"), found, url=URL)
    assert not repaired(None, found, url=URL)
