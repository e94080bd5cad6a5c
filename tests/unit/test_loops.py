"""Background tasks are run again whatever they fail with, however often, and /readyz names those that stay down."""

import asyncio
from collections.abc import Callable

import pytest
import structlog
from prometheus_client import REGISTRY

from app.core.background import SECONDS_DOWN, BackgroundLoops, pause_after
from app.core.errors import DatabaseUnavailable, HealthCheck
from tests.support.clock import ManualClock

HOUR = 3600.0


class Failing:
    """A task that fails so often, with these errors in turn, and then rests for an hour."""

    def __init__(self, times: int, *errors: BaseException) -> None:
        self._left = times
        self._errors = errors
        self.rests = asyncio.Event()

    async def run_once(self) -> float:
        self._left -= 1
        if self._left >= 0:
            raise self._errors[self._left % len(self._errors)]
        self.rests.set()
        return HOUR


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not is_so():
            await asyncio.sleep(0)


async def only_finding(loops: BackgroundLoops) -> HealthCheck:
    [finding] = await loops.health_checks()
    return finding


def failures(task: str) -> float:
    return REGISTRY.get_sample_value("receiver_background_failures_total", {"task": task}) or 0.0


@pytest.mark.parametrize(
    ("errors", "event"),
    [
        ((KeyError("a bug"),), "loop.failed"),
        ((DatabaseUnavailable(reason="ConnectionRefusedError"),), "loop.database_unavailable"),
        ((asyncio.CancelledError(),), "loop.failed"),
        ((KeyError("a bug"), DatabaseUnavailable()), "loop.failed"),
    ],
)
async def test_a_task_is_run_again_after_1100_failures_in_a_row(errors: tuple[BaseException, ...], event: str) -> None:
    loops, failing, name = BackgroundLoops(ManualClock()), Failing(1100, *errors), f"task {errors}"
    with structlog.testing.capture_logs() as logged:
        loops.start(name, failing.run_once, pause_after_error=0.0)
        async with asyncio.timeout(20):
            await failing.rests.wait()
    assert event in {line["event"] for line in logged}
    assert [line["errors"] for line in logged] == list(range(1, 1101))
    assert failures(name) == 1100
    await until_ok(loops)
    await loops.stop()


async def until_ok(loops: BackgroundLoops) -> None:
    async with asyncio.timeout(20):
        while not (await only_finding(loops)).ok:
            await asyncio.sleep(0)


def test_pauses_after_errors_grow_to_their_bound_and_no_further() -> None:
    pauses = [pause_after(failures, first=1.0, longest=30.0) for failures in range(1, 1101)]
    assert pauses[:6] == [1, 2, 4, 8, 16, 30]
    assert set(pauses[6:]) == {30}


@pytest.mark.parametrize(("times", "is_down"), [(1, False), (2, False), (3, True)])
async def test_a_task_is_down_after_three_failures_in_a_row(times: int, is_down: bool) -> None:
    loops, failing, name = BackgroundLoops(ManualClock()), Failing(times, KeyError("a secret")), f"down {times}"
    loops.start(name, failing.run_once, pause_after_error=0.0 if times > 1 else HOUR)
    loops.start("well", Failing(0, KeyError()).run_once)
    await until(lambda: failures(name) == times)
    assert failing.rests.is_set() is False
    finding = await only_finding(loops)
    assert finding.name == "background_tasks"
    assert finding.is_required
    assert finding.ok is not is_down
    assert ("KeyError" in finding.detail and name in finding.detail) is is_down
    assert "secret" not in finding.detail
    assert "well" not in finding.detail
    await loops.stop()


async def test_a_task_without_work_counts_as_well_again_some_time_after_its_newest_failure() -> None:
    clock = ManualClock()
    loops, left, waits = BackgroundLoops(clock), 3, asyncio.Event()

    async def run_once() -> float:
        nonlocal left
        left -= 1
        if left >= 0:
            raise KeyError
        waits.set()
        await asyncio.Event().wait()
        return 0.0

    task = loops.start("idle", run_once, pause_after_error=0.0)
    await waits.wait()
    assert not (await only_finding(loops)).ok
    clock.advance(seconds=SECONDS_DOWN)
    assert (await only_finding(loops)).ok
    task.cancel()
    await asyncio.wait([task])


async def test_a_task_without_a_database_is_named_and_leaves_the_process_ready() -> None:
    loops = BackgroundLoops(ManualClock())
    loops.start(
        "away", Failing(10**9, DatabaseUnavailable(reason="InsufficientPrivilegeError")).run_once, pause_after_error=0
    )
    await until(lambda: failures("away") >= 3)
    finding = await only_finding(loops)
    assert (finding.ok, finding.is_required) == (False, False)
    assert "away" in finding.detail
    assert "InsufficientPrivilegeError" in finding.detail
    await loops.stop()


async def test_a_task_that_has_ended_by_accident_is_down_and_one_that_is_done_is_not() -> None:
    loops = BackgroundLoops(ManualClock())

    async def once() -> None:
        return None

    done = loops.start("done", once)
    ended = loops.start("ended", Failing(0, KeyError()).run_once)
    await done
    assert (await only_finding(loops)).detail == "1 running"
    ended.cancel()
    await asyncio.wait([ended])
    finding = await only_finding(loops)
    assert (finding.ok, finding.is_required) == (False, True)
    assert finding.detail.startswith("ended has ended")
    await loops.stop()
    assert (await only_finding(loops)).ok
