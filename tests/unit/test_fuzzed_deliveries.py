"""Mutated deliveries raise nothing, take bounded time, and are accepted only with a valid MAC."""

from tests.soak.fuzzing import fuzz


def test_whatever_the_bytes_only_a_valid_mac_is_accepted_and_nothing_raises() -> None:
    result = fuzz(15_000, seed=1)
    assert result.wrongly == 0
    assert result.slowest < 1, "a case took more than its 50 ms per 64 KiB"
    assert 1_500 < result.accepted < 13_500  # or the cases try nothing
    assert result.explored > 3, "no case went where none had gone"
