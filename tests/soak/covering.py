"""Which steps from line to line a call takes in the modules that are fuzzed: a case that takes a new one is kept."""

import sys
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

from tests.support.deployment import ROOT

WATCHED = tuple(str(ROOT / "app" / part) for part in ("rivya", "intake"))
Step = tuple[CodeType, int, int]


class Covering:
    """Collects every step that was ever taken. Tracing makes a call some five times as slow: trace a sample."""

    def __init__(self) -> None:
        self.steps: set[Step] = set()

    def takes_new_steps(self, call: Callable[[], object]) -> bool:
        """Make the call; whether it went where none had gone. Raises what the call raises."""
        before = len(self.steps)
        outer = sys.gettrace()
        sys.settrace(self._entered)
        try:
            call()
        finally:
            sys.settrace(outer)
        return len(self.steps) > before

    def _entered(self, frame: FrameType, _event: str, _argument: object) -> Any:
        code = frame.f_code
        if not code.co_filename.startswith(WATCHED):
            return None
        steps, last = self.steps, 0

        def stepped(inner: FrameType, event: str, _argument: object) -> Any:
            nonlocal last
            if event == "line":
                steps.add((code, last, inner.f_lineno))
                last = inner.f_lineno
            return stepped

        return stepped
