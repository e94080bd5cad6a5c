"""Log lines have what every line has, and never raise."""

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager

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
    assert line == {"event": "usual", "level": "info", "logger": "app.somewhere", "a": 1, "b": 2}


def test_a_closed_stream_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    with configured(monkeypatch, "json", least=logging.INFO) as written:
        written.close()
        structlog.stdlib.get_logger("app.elsewhere").warning("usual")
