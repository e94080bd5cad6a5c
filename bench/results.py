"""What was measured, gathered as the run goes on: figures and notes."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the first table: what must be reached, and what was."""

    what: str
    target: str
    measured: str
    is_reached: bool


@dataclass(slots=True)
class Results:
    """Everything that goes into RESULTS.md."""

    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, what: str, *, target: str, measured: str, is_reached: bool) -> None:
        """One figure; told at once, since the run takes a while."""
        self.figures.append(Figure(what, target, measured, is_reached))
        print(f"{'ok  ' if is_reached else 'MISS'} {what}: {measured} (target {target})", flush=True)

    def note(self, text: str) -> None:
        """Something to be said below the table."""
        self.notes.append(text)
        print(f"     {text}", flush=True)


def spread(values: Sequence[float], form: str = ".3f") -> str:
    """The median and, in brackets, the least and the greatest."""
    middle = statistics.median(values)
    return f"{middle:{form}} [{min(values):{form}} … {max(values):{form}}]"
