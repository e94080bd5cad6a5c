"""Lines written past the pipeline look like those that pass it, obey the level, and never raise."""

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import structlog

from app.core import logs

LINES = [{"event": "delivery.recorded", "event_id": "evt_1", "outcome": "applied"}, {"event": "generation.settled"}]


@contextmanager
def configured(monkeypatch: pytest.MonkeyPatch, form: logs.LogFormat, *, least: int) -> Iterator[io.StringIO]:
    """What is written to standard error meanwhile; the logging of the tests comes back afterwards."""
    written, root, known = io.StringIO(), logging.getLogger(), structlog.get_config()
    handlers, level = root.handlers, root.level
    monkeypatch.setattr("sys.stderr", written)
    logs.configure(form, least=least)
    yield written
    root.handlers, root.level = handlers, level
    structlog.configure(**known)


def test_as_json_they_have_what_the_pipeline_gives_every_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with configured(monkeypatch, "json", least=logging.INFO) as written, structlog.contextvars.bound_contextvars(a=1):
        structlog.stdlib.get_logger("app.elsewhere").info("usual")
        logs.info_each("app.somewhere", LINES)
        usual, *lines = [json.loads(line) for line in written.getvalue().splitlines()]
    assert [{name: line[name] for name in wanted} for line, wanted in zip(lines, LINES, strict=True)] == LINES
    for line, wanted in zip(lines, LINES, strict=True):
        assert line.keys() - wanted.keys() == usual.keys() - {"event"}
        assert (line["level"], line["logger"], line["a"]) == ("info", "app.somewhere", 1)
        assert len(line["timestamp"]) == len(usual["timestamp"])
        assert line["timestamp"].endswith("Z")


def test_on_a_console_each_has_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with configured(monkeypatch, "console", least=logging.INFO) as written:
        logs.info_each("app.somewhere", LINES)
        first, second = written.getvalue().splitlines()
    assert "delivery.recorded" in first
    assert "event_id=evt_1" in first
    assert "generation.settled" in second


@pytest.mark.parametrize(("least", "lines"), [(logging.WARNING, LINES), (logging.INFO, [])], ids=["level", "none"])
def test_nothing_is_written_where_there_is_nothing_to_say(
    monkeypatch: pytest.MonkeyPatch, least: int, lines: list[dict[str, str]]
) -> None:
    with configured(monkeypatch, "json", least=least) as written:
        logs.info_each("app.somewhere", lines)
        assert written.getvalue() == ""


def test_a_closed_stream_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    with configured(monkeypatch, "json", least=logging.INFO) as written:
        written.close()
        logs.info_each("app.somewhere", LINES)
        structlog.stdlib.get_logger("app.elsewhere").warning("usual")
