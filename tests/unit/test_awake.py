"""The loop is kept awake as long as it was asked to, by one callback for each of its turns."""

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import TypeVarTuple

from app.core.awake import Awake

Arguments = TypeVarTuple("Arguments")


class Turning(asyncio.BaseEventLoop):
    """A loop whose time the test moves, and whose turns it takes."""

    def __init__(self) -> None:
        self.now = 100.0
        self.ready: deque[Callable[[], object]] = deque()

    def time(self) -> float:
        return self.now

    def get_debug(self) -> bool:
        return False

    def call_soon(
        self, callback: Callable[[*Arguments], object], *args: *Arguments, context: Context | None = None
    ) -> asyncio.Handle:
        self.ready.append(lambda: callback(*args))
        return asyncio.Handle(callback, args, self, context)

    def __del__(self) -> None:
        """Nothing was opened."""

    def turn(self) -> int:
        """How many callbacks there were."""
        count = len(self.ready)
        for _ in range(count):
            self.ready.popleft()()
        return count


def test_there_is_something_to_do_until_the_time_is_over() -> None:
    loop, awake = Turning(), Awake()
    awake.keep(loop)
    assert [loop.turn() for _ in range(3)] == [1, 1, 1]
    loop.now += 0.004
    assert [loop.turn(), loop.turn()] == [1, 1]
    loop.now += 0.001
    assert [loop.turn(), loop.turn()] == [1, 0], "the last one finds that it is over"


def test_to_be_asked_again_prolongs_it_and_makes_no_second_callback() -> None:
    loop, awake = Turning(), Awake()
    awake.keep(loop)
    loop.now += 0.004
    awake.keep(loop)
    loop.now += 0.004
    assert [loop.turn(), loop.turn()] == [1, 1]
    loop.now += 0.001
    assert [loop.turn(), loop.turn()] == [1, 0]
    awake.keep(loop)
    assert [loop.turn(), loop.turn()] == [1, 1], "and it can be asked again when it was over"
