"""In manual mode work is done when its time is reached, in order, and never before."""

from app.sandbox.clock import Job, Work


def _noting(done: list[str], name: str) -> Job:
    async def job() -> None:
        done.append(name)

    return job


async def test_due_work_is_done_in_order_of_its_time() -> None:
    work, done = Work(manual=True), list[str]()
    work.later(5, _noting(done, "late"))
    work.later(1, _noting(done, "early"))
    work.later(1, _noting(done, "early too"))
    await work.advance(4)
    assert done == ["early", "early too"]
    await work.advance(1)
    assert done == ["early", "early too", "late"]


async def test_work_made_by_due_work_is_done_in_the_same_advance_if_it_falls_due() -> None:
    work, done = Work(manual=True), list[str]()

    async def again() -> None:
        done.append(f"at {work.time():g}")
        work.later(2, again)

    work.later(2, again)
    await work.advance(5)
    assert done == ["at 2", "at 4"]
    assert work.time() == 5


async def test_closing_wakes_sleepers_and_drops_what_runs_by_itself() -> None:
    work, done = Work(manual=False), list[str]()
    work.later(3600, _noting(done, "never"))
    await work.close()
    await work.drain()
    assert done == []
