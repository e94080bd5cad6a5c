"""When a batch is begun beside another, and how many it takes; pure.

The figures are measured, with `make bench ONLY=intake` and `ONLY=pressure`: decisions 86 and 91.
"""

from typing import Final

WORTH_A_SECOND: Final = 20
"""So many must wait before a batch is begun beside another: each costs PostgreSQL as much as a dozen of its members."""
_SHARE: Final = 0.36
SECONDS_BEHIND_ANOTHER: Final = 0.02
"""Fewer wait no longer than this for a batch that is under way: it may be held up by somebody's lock."""
TIMES_IN_A_CROWD: Final = 10
"""So much longer a few wait for the batch under way, where others have the cores and every batch takes longer."""
WRITERS: Final = 2
"""On PostgreSQL: while it has one batch, we answer and read the other. SQLite has one writer."""


def largest(waiting: int, being_recorded: int, *, is_alone: bool, most: int) -> int:
    """How many of those that wait the next batch takes, `most` at most.

    All that, where one is recorded after another. Where two may be recorded side by side, little more than a third of
    all whose answers are due: one third is recorded, one waits for that, one is read and answered, and there is no time
    with nothing to do.
    """
    if is_alone:
        return most
    return min(most, max(WORTH_A_SECOND, int((waiting + being_recorded) * _SHARE)))
