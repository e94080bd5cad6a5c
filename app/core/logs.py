"""One log pipeline for our lines and the libraries': JSON for machines, columns for people."""

import logging
import sys
from collections.abc import Mapping, Sequence
from typing import Literal

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

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
            _Renderer(log_format),
        ],
    )
    handler = logging.StreamHandler(sys.stderr)
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


def info_each(log: structlog.stdlib.BoundLogger, lines: Sequence[Mapping[str, object]]) -> None:
    """A line for each of `lines`, each with its `event`, all of one moment, at the price of one and a little for each.

    The pipeline costs more than the commit of a delivery does; here it is passed once for a whole batch.
    """
    if lines:
        log.info("each", **{_LINES: lines})


_LINES = "lines"


class _Renderer:
    """One line, or one for each of `info_each`."""

    def __init__(self, log_format: LogFormat) -> None:
        self._is_json = log_format == "json"
        self._one: Processor = (
            structlog.processors.JSONRenderer()
            if self._is_json
            else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
        )

    def __call__(self, logger: WrappedLogger, name: str, told: EventDict) -> str:
        lines = told.pop(_LINES, None)
        if lines is None:
            return str(self._one(logger, name, told))
        if self._is_json:
            return _json_lines(told, lines)
        return "\n".join(str(self._one(logger, name, {**told, **line})) for line in lines)


def _json_lines(common: EventDict, lines: Sequence[Mapping[str, object]]) -> str:
    """What all have in common is written once, and put at the end of each."""
    del common["event"]
    end = b"," + orjson.dumps(common, default=repr)[1:]
    return b"\n".join([orjson.dumps(line, default=repr)[:-1] + end for line in lines]).decode()
