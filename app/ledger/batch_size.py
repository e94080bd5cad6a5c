"""When a batch is begun beside another, and how many it takes; pure.

Both figures are measured, with `make bench ONLY=intake`: decision 86.
"""

from collections.abc import Mapping
from typing import Final

WORTH_A_SECOND: Final = 20
"""So many must wait before a batch is begun beside another: each costs PostgreSQL as much as a dozen of its members."""
_SHARE: Final = 0.36
ALTERNATING: Final[Mapping[str, int]] = {"writers": 2}
"""While PostgreSQL has one batch, we answer and read the other. SQLite has one writer, and likes its batches large."""


def largest(waiting: int, being_recorded: int, *, writers: int, most: int) -> int:
    """How many of those that wait the next batch takes, `most` at most.

    Where another may be recorded beside it, little more than a third of all whose answers are due: so one third is
    recorded, one waits for that, and one is read and answered, and there is no time with nothing to do.
    """
    if writers == 1:
        return most
    return min(most, max(WORTH_A_SECOND, int((waiting + being_recorded) * _SHARE)))
