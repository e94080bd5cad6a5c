"""What templates write, and what of the outside becomes a link."""

import pytest

from app.console.filters import number, seconds, segment, web_url, words
from app.console.pages import checked_next


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (1234567, "1,234,567"), (1.5, "1.5"), (0.25, "0.25"), (99976.0, "99,976")]
)
def test_a_number_is_grouped(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.25, "0.2 s"), (9.94, "9.9 s"), (42, "42 s"), (60, "1 min"), (3661, "1 h 1 min"), (86400 * 3 + 7200, "3 d 2 h")],
)
def test_a_duration_has_two_units_at_most(value: float, text: str) -> None:
    assert seconds(value) == text


@pytest.mark.parametrize(
    "value",
    [
        *("javascript:alert(1)", "JAVASCRIPT:alert(1)", " javascript:alert(1)", "vbscript:x", "data:text/html,x"),
        *("//host/x", "/path", "http://", "http://[", "file:///etc/passwd", "", None, 3),
    ],
)
def test_only_http_and_https_are_linked(value: object) -> None:
    assert web_url(value) is None


def test_a_web_url_is_linked_as_it_is() -> None:
    for url in ("https://media.example/a.png?x=1&y=<2>", "http://127.0.0.1:1/x"):
        assert web_url(url) == url


def test_a_segment_holds_any_id() -> None:
    assert segment("a/b ?#ü") == "a%2Fb%20%3F%23%C3%BC"


def test_a_name_becomes_words() -> None:
    assert words("callbacks_missed") == "Callbacks missed"


@pytest.mark.parametrize("path", ["/console", "/console?range=day", "/console/audit?actor=a%20b"])
def test_a_page_of_ours_is_where_a_sign_in_may_lead(path: str) -> None:
    assert checked_next(path) == path


@pytest.mark.parametrize(
    "path", ["", "/", "//x", "/\\x", "/console\n", "/consoles", "/console/login?next=/x", "https:/console"]
)
def test_anything_else_leads_to_the_overview(path: str) -> None:
    assert checked_next(path) == "/console"
