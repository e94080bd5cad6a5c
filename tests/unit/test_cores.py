"""Cores are crowded when a thread had to wait for one in a fifth of the time that it could have used."""

import pytest

from app.core.cores import Cores, Told, told_by_linux

MILLISECOND = 1_000_000


class Thread:
    """Runs and waits for so many milliseconds in each tenth of a second."""

    def __init__(self) -> None:
        self.ran, self.waited, self.now = 5000 * MILLISECOND, 700 * MILLISECOND, 10.0
        self.is_told = True
        self.looks = 0
        self.cores = Cores(self.told)
        assert not self.cores.are_crowded(self.now), "nothing is known yet"

    def told(self) -> Told | None:
        self.looks += 1
        return (self.ran, self.waited) if self.is_told else None

    def goes_on(self, *, ran: int, waited: int, looks: int = 30) -> bool:
        for _ in range(looks):
            self.ran, self.waited, self.now = (
                self.ran + ran * MILLISECOND,
                self.waited + waited * MILLISECOND,
                self.now + 0.1001,
            )
            self.cores.are_crowded(self.now)
        return self.cores.are_crowded(self.now)


@pytest.mark.parametrize(
    ("ran", "waited", "are_crowded"),
    [(70, 30, True), (81, 19, False), (100, 0, False), (6, 5, True), (2, 7, False), (0, 0, False)],
)
def test_by_what_a_thread_waited_if_it_was_busy_at_all(ran: int, waited: int, *, are_crowded: bool) -> None:
    assert Thread().goes_on(ran=ran, waited=waited) is are_crowded


def test_one_moment_is_no_crowd_and_half_a_second_is() -> None:
    thread = Thread()
    assert not thread.goes_on(ran=10, waited=90, looks=1)
    assert not thread.goes_on(ran=100, waited=0)
    assert thread.goes_on(ran=50, waited=50, looks=5)
    assert thread.goes_on(ran=0, waited=0), "an idle thread learns nothing new"
    assert not thread.goes_on(ran=100, waited=0, looks=5)


def test_it_looks_ten_times_a_second_at_most() -> None:
    thread = Thread()
    for _ in range(100):
        thread.now += 0.005
        thread.cores.are_crowded(thread.now)
    assert thread.looks <= 1 + 5


def test_where_the_system_does_not_tell_they_never_are() -> None:
    thread = Thread()
    assert thread.goes_on(ran=10, waited=90)
    thread.is_told = False
    assert not thread.goes_on(ran=10, waited=90, looks=1)


def test_linux_tells_of_this_thread() -> None:
    before = told_by_linux()
    assert before is not None
    sum(range(1_000_000))
    now = told_by_linux()
    assert now is not None
    assert now[0] > before[0]
