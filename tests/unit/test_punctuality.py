"""How wide the slots are that a process books."""

from app.polling.punctuality import Tally


def note(tally: Tally, count: int, *, missed: int = 0) -> None:
    """So many requests of the present width: first those that found no slot."""
    width = tally.width
    for number in range(count):
        tally.note(width, is_missed=number < missed)


def test_a_fifth_of_the_slots_may_be_missed() -> None:
    tally = Tally(200, widest=8)
    for _ in range(5):
        note(tally, 200, missed=40)
    assert tally.width == 1


def test_slots_get_twice_as_wide_as_soon_as_more_are_missed_up_to_the_widest() -> None:
    tally, widths = Tally(200, widest=6), []
    for _ in range(4):
        note(tally, 41, missed=41)
        widths.append(tally.width)
    assert widths == [2, 4, 6, 6]


def test_slots_get_narrower_one_by_one_where_that_is_wide_enough() -> None:
    tally, widths = Tally(5, widest=8), []
    note(tally, 3, missed=3)
    note(tally, 3, missed=3)
    for _ in range(4):
        note(tally, 10)
        widths.append(tally.width)
    assert widths == [3, 2, 1, 1]


def test_slots_that_are_just_wide_enough_stay_as_they_are() -> None:
    tally = Tally(5, widest=8)
    note(tally, 3, missed=3)
    note(tally, 10, missed=1)
    note(tally, 10, missed=2)
    assert tally.width == 2


def test_what_was_booked_before_the_last_conclusion_counts_no_more() -> None:
    tally = Tally(5, widest=8)
    for _ in range(50):
        tally.note(1, is_missed=True)
    assert tally.width == 2


def test_a_high_rate_is_judged_by_two_hundred_slots_and_a_low_one_by_ten() -> None:
    high, low = Tally(10_000, widest=40), Tally(0.5, widest=8)
    note(high, 40, missed=40)
    note(low, 2, missed=2)
    assert (high.width, low.width) == (1, 1)
    note(high, 1, missed=1)
    note(low, 1, missed=1)
    assert (high.width, low.width) == (2, 2)
