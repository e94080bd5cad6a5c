"""One log pipeline for our lines and the libraries': JSON for machines, columns for people."""

import logging
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Literal

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
        is_json = log_format == "json"
        colours = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
        self._one: Processor = structlog.processors.JSONRenderer() if is_json else colours
        self._each: Processor = structlog.processors.JSONRenderer(serializer=_json) if is_json else colours

    def __call__(self, logger: WrappedLogger, name: str, told: EventDict) -> str:
        lines = told.pop(_LINES, None)
        if lines is None:
            return str(self._one(logger, name, told))
        return "\n".join(str(self._each(logger, name, {**told, **line})) for line in lines)


def _json(told: Mapping[str, Any], *, default: Any) -> str:  # noqa: ANN401 - as structlog calls it
    return orjson.dumps(told, default=default).decode()
