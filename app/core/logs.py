"""One log pipeline for our lines and the libraries': JSON for machines, columns for people."""

import logging
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from datetime import UTC, datetime
from typing import Literal, TextIO

import orjson
import structlog
from structlog.typing import Processor

LogFormat = Literal["json", "console"]


def configure(log_format: LogFormat, *, least: int = logging.INFO) -> None:
    """Send every log line of at least level `least` to standard error, in `log_format`."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            _renderer(log_format),
        ],
    )
    handler = _Handler(log_format)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(least)
    # httpx logs every request with its whole URL; our own events say what matters.
    for name in ("httpx", "httpcore", "alembic", "uvicorn.access"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in ("uvicorn", "uvicorn.error"):
        logging.getLogger(name).handlers = []
        logging.getLogger(name).propagate = True


def info_each(name: str, lines: Sequence[Mapping[str, object]]) -> None:
    """A line for each of `lines`, each with its `event`, all of one moment, by the logger of this name.

    The pipeline costs more than the commit of a delivery does: once `configure` was called, it is not passed.
    """
    if not lines:
        return
    handler = next((it for it in logging.getLogger().handlers if isinstance(it, _Handler)), None)
    if handler is None:
        structlog.stdlib.get_logger(name).info("each", lines=lines)
    elif logging.getLogger(name).isEnabledFor(logging.INFO):
        handler.write_each(name, lines)


class _Handler(logging.StreamHandler[TextIO]):
    """Standard error; also for lines that are written past the pipeline, as it would write them."""

    def __init__(self, log_format: LogFormat) -> None:
        super().__init__(sys.stderr)
        self._is_json = log_format == "json"
        self._one = _renderer(log_format)

    def write_each(self, name: str, lines: Sequence[Mapping[str, object]]) -> None:
        """All of them, of this moment. Never raises, like all that a handler does."""
        moment = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        common = {**structlog.contextvars.get_contextvars(), "level": "info", "logger": name, "timestamp": moment}
        try:
            with self.lock or nullcontext():
                self.stream.write(self._text(common, lines) + self.terminator)
                self.flush()
        except Exception:  # noqa: BLE001 - what the standard library does with any
            self.handleError(logging.makeLogRecord({"name": name, "msg": "each"}))

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the standard library's name
        """As usual; not even a closed stream makes it raise."""
        with suppress(Exception):
            super().handleError(record)

    def _text(self, common: Mapping[str, object], lines: Sequence[Mapping[str, object]]) -> str:
        if self._is_json:
            return _json_lines(common, lines)
        return "\n".join(str(self._one(None, "info", {**common, **line})) for line in lines)


def _renderer(log_format: LogFormat) -> Processor:
    if log_format == "json":
        return structlog.processors.JSONRenderer()
    return structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())


def _json_lines(common: Mapping[str, object], lines: Sequence[Mapping[str, object]]) -> str:
    """What all have in common is written once, and put at the end of each."""
    end = b"," + orjson.dumps(common, default=repr)[1:]
    return b"\n".join([orjson.dumps(line, default=repr)[:-1] + end for line in lines]).decode()
