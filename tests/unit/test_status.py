"""The state machine: steps may be skipped, never undone; terminal is final."""

import pytest

from app.ledger.models import Outcome, Status, classify

OPEN = (Status.QUEUED, Status.PROCESSING)
TERMINAL = (Status.SUCCEEDED, Status.FAILED)


@pytest.mark.parametrize("claimed", Status)
def test_the_first_word_of_a_generation_is_taken_whatever_it_is(claimed: Status) -> None:
    assert classify(None, claimed) is Outcome.APPLIED


@pytest.mark.parametrize("current", Status)
def test_the_same_word_again_is_stale(current: Status) -> None:
    assert classify(current, current) is Outcome.STALE


@pytest.mark.parametrize("current", OPEN)
@pytest.mark.parametrize("claimed", TERMINAL)
def test_an_open_generation_can_end(current: Status, claimed: Status) -> None:
    assert classify(current, claimed) is Outcome.APPLIED


@pytest.mark.parametrize("current", TERMINAL)
@pytest.mark.parametrize("claimed", OPEN)
def test_an_ended_generation_never_opens_again(current: Status, claimed: Status) -> None:
    assert classify(current, claimed) is Outcome.STALE


def test_a_step_is_never_undone() -> None:
    assert classify(Status.PROCESSING, Status.QUEUED) is Outcome.STALE


@pytest.mark.parametrize(("current", "claimed"), [TERMINAL, TERMINAL[::-1]])
def test_the_other_outcome_is_a_conflict(current: Status, claimed: Status) -> None:
    assert classify(current, claimed) is Outcome.CONFLICT
