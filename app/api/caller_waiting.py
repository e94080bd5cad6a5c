"""A caller who waits for an outcome without a task: a thousand of them are woken in the time that a few tasks take."""

import asyncio
from collections.abc import Callable

import structlog

from app.api.shared_reads import Found, SharedReads
from app.ledger.changes import Changes
from app.ledger.models import Generation

log = structlog.stdlib.get_logger(__name__)

Tell = Callable[["asyncio.Future[Found] | None"], None]
"""Answers the caller with what a read found, or failed with; None where there was none: he left, or we failed."""


class CallerWaiting:
    """Looks, sleeps until woken, looks again, and tells once: an outcome, or whatever is known when the time is over.

    A look that has begun may be older than what woke us, so another one follows it.
    """

    __slots__ = (
        "_changes", "_generation_id", "_is_last", "_is_looking", "_is_woken", "_known", "_reads", "_stopping", "_tell",
        "_timer",
    )  # fmt: skip

    def __init__(
        self,
        generation_id: str,
        seconds: float,
        tell: Tell,
        *,
        reads: SharedReads,
        changes: Changes,
        stopping: asyncio.Event,
    ) -> None:
        self._generation_id = generation_id
        self._tell: Tell | None = tell
        """None: it has been told."""
        self._reads = reads
        self._changes = changes
        self._stopping = stopping
        self._known: asyncio.Future[Found] | None = None
        self._is_looking = self._is_woken = self._is_last = False
        self._look()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._expire)
        changes.begin(generation_id, self)

    def set(self) -> None:
        """Something has changed, or we stop; then what is known is told, since the database may be gone already."""
        if self._stopping.is_set() and self._known is not None:
            self._finish(self._known)
        elif self._is_looking:
            self._is_woken = True
        elif self._tell is not None:
            try:
                self._look()
            except Exception:
                log.exception("waiting.failed")
                self._finish(None)

    def leave(self) -> None:
        """Nobody waits any more."""
        self._finish(None)

    def _expire(self) -> None:
        self._is_last = True
        self.set()

    def _look(self) -> None:
        self._is_looking, self._is_woken = True, False
        self._reads.ask(self._generation_id).add_done_callback(self._seen)

    def _seen(self, answer: "asyncio.Future[Found]") -> None:
        self._is_looking = False
        if self._tell is None:
            return
        try:
            found = found_in(answer, self._generation_id)
            if found is None or found.status.is_terminal or self._stopping.is_set():
                self._finish(answer)
                return
            self._known = answer
            if self._is_woken:
                self._look()
            elif self._is_last:
                self._finish(answer)
        except Exception:
            log.exception("waiting.failed")
            self._finish(None)

    def _finish(self, answer: "asyncio.Future[Found] | None") -> None:
        tell, self._tell, self._known = self._tell, None, None
        if tell is not None:
            self._timer.cancel()
            self._changes.end(self._generation_id, self)
            tell(answer)


def found_in(answer: "asyncio.Future[Found]", generation_id: str) -> Generation | None:
    """What a read that is over tells of a generation; None where it failed."""
    is_told = not answer.cancelled() and answer.exception() is None
    return answer.result().get(generation_id) if is_told else None
