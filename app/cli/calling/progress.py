"""One line that tells what is being waited for: rewritten each second on a terminal, else written when it changes."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TextIO

from app.cli.calling.table import plain

_SECONDS = 1.0
_CLEAR = "\r\x1b[K"


class Progress:
    """Tells on `out`; `now` gives seconds on any clock that only goes forward."""

    def __init__(self, out: TextIO, now: Callable[[], float]) -> None:
        self._out = out
        self._now = now
        self._began = now()
        self._text = ""
        self._is_terminal = out.isatty()

    def tell(self, text: str) -> None:
        """What is so now."""
        if text == self._text:
            return
        self._text = plain(text)
        if self._is_terminal:
            self._draw()
        else:
            self._write(f"{self._text}\n")

    async def tick(self) -> None:
        """Rewrite the line each second, with the time that has passed, until cancelled."""
        while True:
            await asyncio.sleep(_SECONDS)
            self._draw()

    def clear(self) -> None:
        """Take the line away."""
        if self._is_terminal:
            self._write(_CLEAR)

    def _draw(self) -> None:
        self._write(f"{_CLEAR}{self._text}, {self._now() - self._began:.0f} s")

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()


@asynccontextmanager
async def progress_on(out: TextIO) -> AsyncIterator[Progress]:
    """A progress line for the time of the block."""
    progress = Progress(out, asyncio.get_running_loop().time)
    ticking = asyncio.create_task(progress.tick()) if out.isatty() else None
    try:
        yield progress
    finally:
        if ticking is not None:
            ticking.cancel()
            await asyncio.gather(ticking, return_exceptions=True)
        progress.clear()
