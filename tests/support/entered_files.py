"""Which files of app/ are entered while something runs."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType, FrameType

from app.cli.server import Server
from tests.support.deployment import ROOT

_APP = f"{ROOT / 'app'}/"
_NO_PART: frozenset[CodeType] = frozenset({Server.on_tick.__code__})
"""What runs ten times a second, whatever comes."""


class EnteredFiles:
    """Notes the files whose functions run within `watching`, in this thread and in those begun within `install`."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        """Paths within app/."""
        self._is_watching = False

    @contextmanager
    def install(self) -> Iterator[None]:
        """To be entered before the threads of SQLite begin."""
        threading.setprofile(self._on_event)
        try:
            yield
        finally:
            threading.setprofile(None)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Note the files that are entered within the block."""
        self._is_watching = True
        sys.setprofile(self._on_event)
        try:
            yield
        finally:
            sys.setprofile(None)
            self._is_watching = False

    def _on_event(self, frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if self._is_watching and event == "call" and code.co_filename.startswith(_APP) and code not in _NO_PART:
            self.names.add(code.co_filename.removeprefix(_APP))
