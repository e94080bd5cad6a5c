"""How long things are kept."""

from datetime import timedelta

from app.operations.retention import limits
from tests.support.clock import NOON


def test_a_delivery_is_recognised_for_a_month_longer_than_its_body_is_kept() -> None:
    old = limits(NOON, days=90)
    assert old is not None
    assert old.settled_before == NOON - timedelta(days=90)
    assert old.pruned_before == NOON - timedelta(days=30)


def test_zero_days_keep_everything() -> None:
    assert limits(NOON, days=0) is None
