"""One log pipeline for our lines and those of libraries: JSON for machines, columns for people."""

import json
import logging
import sys
from contextlib import suppress
from typing import Any, Literal, TextIO

import orjson
import structlog
from structlog.typing import Processor

LogFormat = Literal["json", "console"]


def configure(log_format: LogFormat, *, least: int | str = logging.INFO) -> None:
    """Send every log line of at least level `least`, a number or its name, to standard error, in `log_format`.

    Our own lines do not pass through `logging`, which takes 20 µs for each: every call of the API writes one.
    """
    level = logging.getLevelNamesMapping()[least.upper()] if isinstance(least, str) else least
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    console = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    renderer = structlog.processors.JSONRenderer(serializer=_dump) if log_format == "json" else console
    rendering: list[Processor] = [structlog.processors.format_exc_info, renderer]
    structlog.configure(
        processors=[*shared, *rendering],
        logger_factory=_Writer,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
    )
    handler = _Handler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    # httpx logs each request with its whole URL, aiosqlite each statement with its values: our own events say enough.
    for name in ("httpx", "httpcore", "alembic", "aiosqlite", "uvicorn.access"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in ("uvicorn", "uvicorn.error"):
        logging.getLogger(name).handlers = []
        logging.getLogger(name).propagate = True


def _dump(line: Any, **options: Any) -> str:  # noqa: ANN401 - any JSON value
    try:
        return orjson.dumps(line, **options).decode()
    except TypeError:  # lone surrogates and integers beyond 64 bits, which orjson does not write
        return json.dumps(line, **options)


class _Writer:
    """Writes rendered lines to standard error; a closed stream does not make it raise."""

    def __init__(self, name: str | None = None) -> None:
        self.name = name
        self._stream = sys.stderr

    def msg(self, line: str) -> None:
        with suppress(ValueError, OSError):
            self._stream.write(line + "\n")

    debug = info = warning = error = critical = msg


class _Handler(logging.StreamHandler[TextIO]):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the standard library's name
        """As in the standard library, but a closed stream does not make it raise."""
        with suppress(Exception):
            super().handleError(record)
