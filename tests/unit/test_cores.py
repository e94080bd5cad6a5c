"""Cores are crowded when a thread had to wait for one in a fifth of the time that it could have used."""

import sys
from collections.abc import Iterator

import pytest

from app.core.cores import Cores, Told, told_by_linux

MILLISECOND = 1_000_000
BEFORE = (5000 * MILLISECOND, 700 * MILLISECOND)


def after(ran: int, waited: int) -> Told:
    """Milliseconds later."""
    return BEFORE[0] + ran * MILLISECOND, BEFORE[1] + waited * MILLISECOND


def cores(*told: Told | None) -> Cores:
    answers: Iterator[Told | None] = iter(told)
    return Cores(lambda: next(answers))


@pytest.mark.parametrize(
    ("ran", "waited", "are_crowded"),
    [(80, 20, True), (81, 19, False), (100, 0, False), (5, 5, True), (2, 7, False), (0, 0, False)],
)
def test_by_what_a_thread_waited_if_it_was_busy_at_all(ran: int, waited: int, *, are_crowded: bool) -> None:
    looked = cores(BEFORE, after(ran, waited))
    assert not looked.are_crowded(10.0), "nothing is known yet"
    assert looked.are_crowded(10.1) is are_crowded


def test_one_look_stands_for_a_tenth_of_a_second_and_tells_of_nothing_before_it() -> None:
    looked = cores(BEFORE, after(50, 50), after(150, 50))
    assert [looked.are_crowded(at) for at in (10.0, 10.05, 10.1, 10.15, 10.2)] == [False, False, True, True, False]


def test_where_the_system_does_not_tell_they_never_are() -> None:
    looked = cores(BEFORE, after(0, 100), None, None)
    assert [looked.are_crowded(at) for at in (10.0, 10.1, 10.2, 10.3)] == [False, True, False, False]


@pytest.mark.skipif(sys.platform != "linux", reason="nobody else tells")
def test_linux_tells_of_this_thread() -> None:
    before = told_by_linux()
    assert before is not None
    sum(range(1_000_000))
    now = told_by_linux()
    assert now is not None
    assert now[0] > before[0]
