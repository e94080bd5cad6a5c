"""One log pipeline for our lines and those of libraries: JSON for machines, columns for people."""

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
    """Log each of `lines`, which have an `event`, by the logger `name`, all with the same time.

    After `configure` they bypass the pipeline, which costs more than the commit of a delivery.
    """
    if not lines:
        return
    handler = next((handler for handler in logging.getLogger().handlers if isinstance(handler, _Handler)), None)
    if handler is None:
        structlog.stdlib.get_logger(name).info("each", lines=lines)
    elif logging.getLogger(name).isEnabledFor(logging.INFO):
        handler.write_each(name, lines)


class _Handler(logging.StreamHandler[TextIO]):
    """Writes to standard error, also lines that bypass the pipeline, in the format of the pipeline."""

    def __init__(self, log_format: LogFormat) -> None:
        super().__init__(sys.stderr)
        self._is_json = log_format == "json"
        self._one = _renderer(log_format)

    def write_each(self, name: str, lines: Sequence[Mapping[str, object]]) -> None:
        """Write all lines with the present time. Never raises, like every method of a handler."""
        now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        common = {**structlog.contextvars.get_contextvars(), "level": "info", "logger": name, "timestamp": now}
        try:
            with self.lock or nullcontext():
                text = _json_lines if self._is_json else self._console_lines
                self.stream.write(text(common, lines) + self.terminator)
                self.flush()
        except Exception:  # noqa: BLE001 - as the standard library does
            self.handleError(logging.makeLogRecord({"name": name, "msg": "each"}))

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the standard library's name
        """As in the standard library, but a closed stream does not make it raise."""
        with suppress(Exception):
            super().handleError(record)

    def _console_lines(self, common: Mapping[str, object], lines: Sequence[Mapping[str, object]]) -> str:
        return "\n".join(str(self._one(None, "info", {**common, **line})) for line in lines)


def _renderer(log_format: LogFormat) -> Processor:
    if log_format == "json":
        return structlog.processors.JSONRenderer()
    return structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())


def _json_lines(common: Mapping[str, object], lines: Sequence[Mapping[str, object]]) -> str:
    """The lines as JSON. The common members are serialised once and put at the end of each line."""
    end = b"," + orjson.dumps(common, default=repr)[1:]
    return b"\n".join([orjson.dumps(line, default=repr)[:-1] + end for line in lines]).decode()
