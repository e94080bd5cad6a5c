"""In manual mode work is done when its time is reached, in order, and never before."""

from app.sandbox.clock import Job, Scheduler


def _noting(done: list[str], name: str) -> Job:
    async def job() -> None:
        done.append(name)

    return job


async def test_due_work_is_done_in_order_of_its_time() -> None:
    scheduler, done = Scheduler(manual=True), list[str]()
    scheduler.call_later(5, _noting(done, "late"))
    scheduler.call_later(1, _noting(done, "early"))
    scheduler.call_later(1, _noting(done, "early too"))
    await scheduler.advance(4)
    assert done == ["early", "early too"]
    await scheduler.advance(1)
    assert done == ["early", "early too", "late"]


async def test_work_made_by_due_work_is_done_in_the_same_advance_if_it_falls_due() -> None:
    scheduler, done = Scheduler(manual=True), list[str]()

    async def again() -> None:
        done.append(f"at {scheduler.time():g}")
        scheduler.call_later(2, again)

    scheduler.call_later(2, again)
    await scheduler.advance(5)
    assert done == ["at 2", "at 4"]
    assert scheduler.time() == 5


async def test_closing_wakes_sleepers_and_drops_what_runs_by_itself() -> None:
    scheduler, done = Scheduler(manual=False), list[str]()
    scheduler.call_later(3600, _noting(done, "never"))
    await scheduler.close()
    await scheduler.drain()
    assert done == []
