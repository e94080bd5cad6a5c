"""Our clock does not jump with the machine's, and believes another only after a while."""

from datetime import timedelta

import pytest

from app.core.clock import CONFIRM_AFTER, ClockSkew, SystemClock, alternate_clocks, is_confirmed, track_skew
from tests.support.clock import NOON, ManualClock
from tests.support.machine_clock import Machine

HOUR = 3600.0


@pytest.mark.parametrize("step", [HOUR, -HOUR])
def test_a_step_of_the_machines_clock_does_not_show(step: float) -> None:
    machine = Machine()
    began = machine.clock.monotonic()
    machine.pass_time(10)
    machine.step(step)
    machine.pass_time(10)
    assert machine.clock.now() == NOON + timedelta(seconds=20)
    assert machine.clock.monotonic() - began == 20
    assert machine.clock.wall() == NOON + timedelta(seconds=20 + step)


def test_what_is_adopted_is_the_time_from_then_on_and_what_was_before_is_not_forgotten() -> None:
    machine = Machine()
    machine.clock.set_reference(NOON + timedelta(hours=1))
    machine.pass_time(10)
    assert machine.clock.now() == NOON + timedelta(hours=1, seconds=10)
    wall, before = alternate_clocks(machine.clock)
    assert wall.now() == before.now() == NOON + timedelta(seconds=10)
    assert wall.monotonic() == machine.clock.monotonic()


def test_the_real_clock_tells_the_time_of_this_machine() -> None:
    clock = SystemClock()
    assert abs(clock.now() - clock.wall()) < timedelta(seconds=1)
    assert clock.monotonic() <= clock.monotonic()


def test_a_clock_that_tests_move_has_no_others() -> None:
    assert alternate_clocks(ManualClock()) == ()


def test_clocks_that_agree_leave_no_doubt() -> None:
    assert track_skew(None, 0.9, at=0.0) is None
    assert track_skew(ClockSkew(HOUR, 0.0), -0.9, at=10.0) is None
    assert not is_confirmed(None, at=1e9)


def test_a_step_is_believed_when_it_has_lasted() -> None:
    doubt = track_skew(None, -HOUR, at=5.0)
    assert doubt == ClockSkew(-HOUR, 5.0)
    again = track_skew(doubt, -HOUR + 0.5, at=30.0)
    assert again is doubt
    assert not is_confirmed(again, at=5.0 + CONFIRM_AFTER - 0.1)
    assert is_confirmed(again, at=5.0 + CONFIRM_AFTER)


def test_another_step_begins_to_count_anew() -> None:
    assert track_skew(ClockSkew(HOUR, 5.0), 2 * HOUR, at=60.0) == ClockSkew(2 * HOUR, 60.0)
