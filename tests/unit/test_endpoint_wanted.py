"""What is not as wanted at Rivya is told field by field; what Rivya doesn't tell is taken to be right."""

from typing import Any

import pytest

from app.endpoint.inspection import EVENT_TYPES, differences, repaired
from app.rivya.endpoint_payload import WebhookEndpoint

URL = "https://receiver.example.com/rivya/webhook/0a1b"


def endpoint(**members: Any) -> WebhookEndpoint:
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
    assert differences(endpoint(**members), url=URL) == {}


def test_each_field_that_differs_is_told_with_what_is_wanted() -> None:
    differing = differences(
        endpoint(status="disabled", url="https://a.example/x", event_types=("generation.failed",)), url=URL
    )
    assert differing == {"status": "active", "url": URL, "event_types": list(EVENT_TYPES)}
    assert next(iter(differing)) == "status"


def test_a_repair_counts_only_when_rivya_shows_it() -> None:
    differing = {"status": "active"}
    assert repaired(endpoint(), differing, url=URL)
    assert repaired(endpoint(url="https://a.example/x"), differing, url=URL)  # another field is another matter
    assert not repaired(endpoint(status="disabled"), differing, url=URL)
    assert not repaired(None, differing, url=URL)
