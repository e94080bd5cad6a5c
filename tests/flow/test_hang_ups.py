"""Callers who wait for an outcome and hang up: their wait ends with their connection, and leaves nothing behind."""

import asyncio
import gc
from collections.abc import Awaitable, Callable

import pytest
import uvloop

from tests.support.fast_path_comparison import LAST, ServerPair, read, server_pair
from tests.support.reports import submit

MANY = 200
PATH = "/api/v1/generations/task_7"
LONG = {
    "on the fast path": read(f"{PATH}?wait=60"),
    "on the documented route": read(f"{PATH}?wait=59.5"),
    "by preference": read(PATH, extra="Prefer: wait=60\r\n"),
}


def served(monkeypatch: pytest.MonkeyPatch, url: str, ask: Callable[[ServerPair], Awaitable[None]]) -> None:
    monkeypatch.setattr("app.fastpath.connections.HALF_CLOSED_SECONDS", 0)

    async def run() -> None:
        async with server_pair(monkeypatch, url) as both:
            await both.service.batch.record(submit("task_7"))
            await ask(both)

    uvloop.run(run())


def waiters(both: ServerPair) -> int:
    return both.service.changes.count


async def eventually(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not is_so():
            await asyncio.sleep(0)


async def hang_up(both: ServerPair, request: bytes, many: int) -> None:
    """That many callers ask, wait, and are gone."""
    writers = [(await asyncio.open_connection("127.0.0.1", both.ports[0]))[1] for _ in range(many)]
    for writer in writers:
        writer.write(request)
    await eventually(lambda: waiters(both) == many)
    await eventually(lambda: not both.service.waiting.reads._tasks)
    for writer in writers:
        writer.transport.abort()
    await eventually(lambda: not both.fast.server_state.connections)


@pytest.mark.parametrize("how", LONG)
def test_a_wait_ends_with_its_connection(monkeypatch: pytest.MonkeyPatch, database_url: str, how: str) -> None:
    async def ask(both: ServerPair) -> None:
        await hang_up(both, LONG[how], MANY)
        await eventually(lambda: waiters(both) == 0 and not both.fast.server_state.tasks)
        [answer, _] = await both.agree(read(PATH) + LAST)
        assert answer.status == 200

    served(monkeypatch, database_url, ask)


@pytest.mark.parametrize("how", LONG)
def test_who_hung_up_leaves_nothing_to_the_collector(
    monkeypatch: pytest.MonkeyPatch, sqlite_url: str, how: str
) -> None:
    async def ask(both: ServerPair) -> None:
        await hang_up(both, LONG[how], 1)  # what is made once is made by now
        await eventually(lambda: not both.fast.server_state.tasks)
        gc.collect()
        gc.disable()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            await hang_up(both, LONG[how], MANY)
            await eventually(lambda: waiters(both) == 0 and not both.fast.server_state.tasks)
            await asyncio.sleep(0)
            gc.collect()
            left = [f"{type(it).__module__}.{type(it).__qualname__}" for it in gc.garbage]
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
        assert {name: left.count(name) for name in left if left.count(name) >= MANY / 2} == {}

    served(monkeypatch, sqlite_url, ask)
