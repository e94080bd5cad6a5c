"""The table at the end of `make soak`: a line for each part of it, and whether every promise was kept."""

import sys
from dataclasses import dataclass, field

from tests.support.run_counts import RunCounts

_COLUMNS = ("faults", "sent", "answered", "recorded", "missing", "doubled", "wrong")
_HEAD = f"{'':<24}" + "".join(f"{name:>10}" for name in _COLUMNS)


@dataclass
class Table:
    """Lines are printed as they come, and once more at the end."""

    lines: list[str] = field(default_factory=list)
    total: RunCounts = field(default_factory=RunCounts)
    is_clean: bool = True

    def add(self, name: str, counts: RunCounts, note: str = "", *, is_clean: bool = True) -> None:
        """One more line; `is_clean` where more than the counts decides."""
        is_well = is_clean and counts.is_clean
        self.is_clean &= is_well
        self.total += counts
        self._line(name, counts, f"{'ok' if is_well else 'BROKEN'}  {note}")

    def add_not_run(self, name: str, why: str, counts: RunCounts | None = None) -> None:
        """Something could not be tried, or not to its end, which is no better than broken."""
        self.is_clean = False
        self.total += counts or RunCounts()
        self._line(name, counts or RunCounts(), f"NOT RUN  {why}")

    def note(self, *words: str) -> None:
        """Something between."""
        say(*words)

    def end(self, minutes: float) -> None:
        """All lines, their sum, and what they come to."""
        say(f"\n{minutes:.1f} minutes", _HEAD, *self.lines)
        say(_written("all", self.total), "every promise was kept" if self.is_clean else "A PROMISE WAS BROKEN")

    def _line(self, name: str, counts: RunCounts, text: str) -> None:
        self.lines.append(f"{_written(name, counts)}  {text.rstrip()}")
        say(self.lines[-1])


def _written(name: str, counts: RunCounts) -> str:
    return f"{name:<24}" + "".join(f"{getattr(counts, column):>10,}" for column in _COLUMNS)


def say(*lines: str) -> None:
    """Print at once, whoever reads."""
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()
