"""Log lines have what every line has, and never raise."""

import io
import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import pytest
import structlog

from app.core import logs


@contextmanager
def configured(monkeypatch: pytest.MonkeyPatch, form: logs.LogFormat, *, least: int | str) -> Iterator[io.StringIO]:
    """What is written to standard error meanwhile; the logging of the tests comes back afterwards."""
    written, root, known = io.StringIO(), logging.getLogger(), structlog.get_config()
    handlers, level = root.handlers, root.level
    monkeypatch.setattr("sys.stderr", written)
    logs.configure(form, least=least)
    yield written
    root.handlers, root.level = handlers, level
    structlog.configure(**known)


def test_a_line_has_what_is_bound_and_its_level_logger_and_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with configured(monkeypatch, "json", least="info") as written, structlog.contextvars.bound_contextvars(a=1):
        structlog.stdlib.get_logger("app.somewhere").info("usual", b=2)
        structlog.stdlib.get_logger("app.somewhere").debug("less")
        [line] = [json.loads(line) for line in written.getvalue().splitlines()]
    assert line.pop("timestamp").endswith("Z")
    members = {"b": 2, "event": "usual", "a": 1, "level": "info", "logger": "app.somewhere"}
    assert list(line.items()) == list(members.items())


def test_a_line_of_a_library_looks_like_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    with configured(monkeypatch, "json", least="info") as written:
        logging.getLogger("uvicorn.error").warning("said %s", "this")
        [line] = [json.loads(line) for line in written.getvalue().splitlines()]
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "said this", "level": "warning", "logger": "uvicorn.error"}


@pytest.mark.parametrize("name", ["httpx", "httpcore.http11", "aiosqlite"])
def test_a_library_that_logs_urls_or_values_is_not_heard_below_warning(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    with configured(monkeypatch, "json", least="debug") as written:
        for level in (logging.DEBUG, logging.INFO):
            logging.getLogger(name).log(level, "INSERT INTO subscriptions VALUES (?)")
        assert written.getvalue() == ""


def test_an_exception_is_logged_with_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    with configured(monkeypatch, "json", least="info") as written:
        try:
            int("this")
        except ValueError:
            structlog.stdlib.get_logger("app.somewhere").exception("failed")
        [line] = [json.loads(line) for line in written.getvalue().splitlines()]
    assert (line["event"], line["level"]) == ("failed", "error")
    assert line["exception"].endswith("ValueError: invalid literal for int() with base 10: 'this'")


@pytest.mark.parametrize("value", ["\udc80", 2**80, b"bytes", ValueError("this")])
def test_a_value_that_is_no_plain_json_is_written_all_the_same(monkeypatch: pytest.MonkeyPatch, value: object) -> None:
    with configured(monkeypatch, "json", least="info") as written:
        structlog.stdlib.get_logger("app.somewhere").info("usual", value=value)
        [line] = [json.loads(line) for line in written.getvalue().splitlines()]
    assert line["value"] in (value, repr(value))


@pytest.mark.parametrize("form", ["json", "console"])
def test_lines_that_are_written_at_once_look_like_those_written_one_by_one(
    monkeypatch: pytest.MonkeyPatch, form: logs.LogFormat
) -> None:
    lines = [{"token": "a", "value": value} for value in (1, None, "\udc80", 2**80, "é")]
    with configured(monkeypatch, form, least="info") as written:
        logs.info_each("app.somewhere", "usual", lines)
        for line in lines:
            structlog.stdlib.get_logger("app.somewhere").info("usual", **line)
    without_times = re.sub("[0-9-]+T[0-9:.]+Z", "", written.getvalue()).splitlines()
    assert without_times[: len(lines)] == without_times[len(lines) :]


@pytest.mark.parametrize("form", ["json", "console"])
def test_lines_that_are_written_at_once_are_left_out_above_their_level(
    monkeypatch: pytest.MonkeyPatch, form: logs.LogFormat
) -> None:
    with configured(monkeypatch, form, least="warning") as written:
        logs.info_each("app.somewhere", "usual", [{"token": "a"}])
        assert written.getvalue() == ""


def test_times_of_our_lines_and_of_those_of_libraries_have_the_same_form(monkeypatch: pytest.MonkeyPatch) -> None:
    with configured(monkeypatch, "json", least="info") as written:
        structlog.stdlib.get_logger("app.somewhere").info("ours")
        logging.getLogger("uvicorn.error").info("theirs")
        times = [json.loads(line)["timestamp"] for line in written.getvalue().splitlines()]
    assert [datetime.fromisoformat(time).isoformat().replace("+00:00", "Z") for time in times] == times


def test_a_closed_stream_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    with configured(monkeypatch, "json", least=logging.INFO) as written:
        written.close()
        structlog.stdlib.get_logger("app.elsewhere").warning("usual")
