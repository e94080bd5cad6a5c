"""A batch leaves others to be read and answered meanwhile, however many wait; a lone writer takes all it may."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.ledger.batch_size import WORTH_A_SECOND, largest


@pytest.mark.parametrize(
    ("waiting", "being_recorded", "taken"),
    [(1, 0, 20), (20, 21, 20), (40, 24, 23), (100, 80, 64), (1000, 200, 200)],
)
def test_a_batch_beside_another_is_a_third_of_all_but_worth_its_price(
    waiting: int, being_recorded: int, taken: int
) -> None:
    assert largest(waiting, being_recorded, is_alone=False, most=200) == taken


@given(st.integers(1, 2000), st.integers(0, 400))
def test_no_batch_beside_another_is_too_small_or_too_large(waiting: int, being_recorded: int) -> None:
    taken = largest(waiting, being_recorded, is_alone=False, most=200)
    assert WORTH_A_SECOND <= taken <= 200
    assert taken == WORTH_A_SECOND or taken <= (waiting + being_recorded) * 2 / 5


def test_a_lone_writer_takes_all_it_may() -> None:
    assert largest(500, 0, is_alone=True, most=200) == 200
