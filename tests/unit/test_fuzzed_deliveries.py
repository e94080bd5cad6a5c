"""Mutated deliveries raise nothing, take bounded time, and are accepted only with a valid MAC."""

from tests.soak.fuzzing import fuzz


def test_whatever_the_bytes_only_a_valid_mac_is_accepted_and_nothing_raises() -> None:
    made = fuzz(20_000, seed=1)
    assert made.wrongly == 0
    assert made.slowest < 1  # seconds
    assert 2_000 < made.accepted < 18_000  # or the cases try nothing
