"""What was caused, sent, answered and recorded: kept by whoever tries something, added up for the table of `make soak`.

Tests run in processes of their own: they write down what they come to where SOAK_COUNTS says, and begin nothing more
SOAK_SECONDS after their first. Neither is set in `make test`.
"""

import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

from app.sandbox.faults import DeliveryFaults
from app.sandbox.state import Sandbox

COUNTS_PATH = "SOAK_COUNTS"
SECONDS = "SOAK_SECONDS"


@dataclass(frozen=True)
class RunCounts:
    """Counts; the last three are 0 where every promise was kept."""

    faults: int = 0
    sent: int = 0
    """Deliveries, each time that one was sent."""
    answered: int = 0
    """Those of them that were answered 2xx."""
    recorded: int = 0
    """Times of coming that the database tells of."""
    missing: int = 0
    doubled: int = 0
    wrong: int = 0

    def __add__(self, other: "RunCounts") -> "RunCounts":
        return RunCounts(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))

    @property
    def is_clean(self) -> bool:
        """Nothing lost, nothing twice, nothing false."""
        return not (self.missing or self.doubled or self.wrong)


def compared(sent: Counter[str], accepted: Counter[str], recorded: Mapping[str, int]) -> tuple[list[str], list[str]]:
    """What is missing, and what is doubled, each in words; by event id: how often it came.

    `recorded` is `deliveries.attempts`.
    """
    missing = [
        f"{event_id}: answered 2xx {count} times, recorded {recorded.get(event_id, 0)}"
        for event_id, count in accepted.items()
        if count > recorded.get(event_id, 0)
    ]
    doubled = [
        f"{event_id}: sent {sent[event_id]} times, recorded {count}"
        for event_id, count in recorded.items()
        if count > sent[event_id]
    ]
    return missing, doubled


def delivered_by(deliveries: Iterable[Any]) -> tuple[Counter[str], Counter[str]]:
    """What the sandbox sent, and what of it was answered 2xx, by event id."""
    sent, accepted = Counter[str](), Counter[str]()
    for delivery in deliveries:
        sent[delivery.event.id] += len(delivery.attempts)
        accepted[delivery.event.id] += sum(200 <= (got["response_status"] or 0) < 300 for got in delivery.attempts)
    return sent, accepted


def faults_of(sandbox: Sandbox) -> int:
    """Calls that were answered otherwise than they should, and events whose delivery suffered."""
    calls = sum(called.fault is not None for called in sandbox.calls.recent)
    return calls + sum(delivery.faults != DeliveryFaults() for delivery in sandbox.sender.log)


def counted(
    sent: Counter[str], accepted: Counter[str], recorded: Mapping[str, int], *, faults: int, tries: int = 1
) -> RunCounts:
    """The same as numbers. Raises AssertionError where something is missing or doubled, after writing it down.

    `tries`: how often the receiver may have recorded one by itself, not knowing whether it had.
    """
    at_most = Counter({event_id: count * tries for event_id, count in sent.items()})
    missing, doubled = compared(at_most, accepted, recorded)
    counts = RunCounts(
        faults, sent.total(), accepted.total(), sum(recorded.values()), missing=len(missing), doubled=len(doubled)
    )
    note(counts)
    assert counts.is_clean, [*missing, *doubled][:20]
    return counts


_noted: list[RunCounts] = []
"""What this process came to so far."""
_began: list[float] = []
"""When its first test did."""


def note(counts: RunCounts) -> None:
    """Write it down for the table, if anybody asked for one."""
    path = os.environ.get(COUNTS_PATH)
    if path:
        _noted.append(counts)
        with Path(path).open("a") as written:
            written.write(json.dumps(asdict(counts)) + "\n")


def read(path: Path) -> RunCounts:
    """All that was written there, added up."""
    lines = path.read_text().splitlines() if path.exists() else []
    return sum((RunCounts(**json.loads(line)) for line in lines), RunCounts())


def is_over() -> bool:
    """The time of this part of the soak is up, and this process has come to something: begin nothing more."""
    seconds = os.environ.get(SECONDS)
    return seconds is not None and bool(_noted) and time.monotonic() - _began[0] > float(seconds)


def begin() -> None:
    """The first test begins: what a process takes to start is not of its time."""
    if not _began:
        _began.append(time.monotonic())
