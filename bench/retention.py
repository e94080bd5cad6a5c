"""A million old generations are pruned by the service that takes deliveries: what that does to the slowest of them."""

import os
import statistics
import time
from dataclasses import dataclass, field

from bench import events, servers
from bench.load import Load
from bench.old import Left, fill_old, left
from bench.results import Results, spread
from bench.steady import paced
from bench.verify import verify
from bench.world import World

SETTLED = int(os.environ.get("BENCH_OLD", "1000000"))
OTHERS = 1000
RATE = 100.0
SECONDS = 15.0
WINDOWS = 3
"""While pruning, for each without."""
_WARM_UP = 100


@dataclass(slots=True)
class Pruned:
    """What came of it."""

    quiet: list[float] = field(default_factory=list)
    """p99 of windows without pruning, in milliseconds."""
    pruning: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    """Each window's p99 while pruning, by that of the window without that went before it."""
    rates: list[float] = field(default_factory=list)
    """Generations a second."""
    sent: int = 0
    accepted: int = 0
    left: Left | None = None

    def gone(self, settled: int) -> int:
        """Of so many, how many were removed."""
        return settled - self.left.generations if self.left is not None else 0

    @property
    def ratio(self) -> float:
        """The median."""
        return statistics.median(self.ratios)


def run(world: World, results: Results) -> None:
    """Until all are gone."""
    url = world.fresh("postgresql")
    began = time.perf_counter()
    fill_old(url, settled=SETTLED, others=OTHERS)
    results.note(f"retention: filled in {time.perf_counter() - began:.0f} s")
    pruned = prune(url, core=world.server_core, until=float("inf"))
    left_ = pruned.left
    assert left_ is not None
    world.drop(url)
    results.add(
        f"p99 of intake at {RATE:.0f}/s while {SETTLED:,} generations are pruned, against without",
        target="≤ 2x",
        measured=f"{spread(pruned.ratios, '.2f')}x; {spread(pruned.pruning, '.1f')} ms against"
        f" {spread(pruned.quiet, '.1f')} ms; {spread(pruned.rates, ',.0f')} pruned a second",
        is_reached=pruned.ratio <= 2,
    )
    results.add(
        "what is left of them",
        target=f"{SETTLED:,} keys, no body; {OTHERS} open; {OTHERS} keys of 29 days, none of 31",
        measured=f"{left_.keys:,} keys, {left_.bodies} bodies; {left_.open} open; {left_.young_keys} keys of 29 days,"
        f" {left_.expired_keys} of 31",
        is_reached=left_.is_pruned and is_as_promised(left_, settled=SETTLED, others=OTHERS),
    )


def prune(url: str, *, core: int, until: float, window_seconds: float = SECONDS) -> Pruned:
    """Windows without pruning and with it, in turn, by the same service, until all is gone or that moment has come.

    `until` is a moment of `time.perf_counter`.
    """
    pruned, number = Pruned(), 0
    pruned.left = left(url)
    while not pruned.left.is_pruned and time.perf_counter() < until:
        with servers.receiver(url, core=core, RECEIVER_RETENTION_DAYS="0") as server:
            pruned.quiet.append(_window(pruned, url, server.port, f"q{number}", window_seconds).percentile(99))
        with servers.receiver(url, core=core, RECEIVER_RETENTION_DAYS="90") as server:
            for window in range(WINDOWS):
                if window and time.perf_counter() > until:
                    break
                before, began = pruned.left.generations, time.perf_counter()
                came = _window(pruned, url, server.port, f"p{number}w{window}", window_seconds).percentile(99)
                pruned.left = left(url)
                if pruned.left.generations and (taken := before - pruned.left.generations):
                    pruned.pruning.append(came)
                    pruned.ratios.append(came / pruned.quiet[-1])
                    pruned.rates.append(taken / (time.perf_counter() - began))
        number += 1
    return pruned


def is_as_promised(remaining: Left, *, settled: int, others: int) -> bool:
    """What has gone went whole, and nothing else did: what is open, and keys for 30 days after their bodies."""
    some = remaining.generations
    keys = {"keys": settled, "young_keys": others, "expired_keys": remaining.expired_keys}
    return remaining == Left(some, transitions=2 * some, bodies=some, open=others, **keys)


def _window(pruned: Pruned, url: str, port: int, name: str, seconds: float) -> Load:
    batch = events.make(name, int(RATE * seconds) + _WARM_UP)
    paced(port, batch.requests[:_WARM_UP], rate=RATE)
    came = paced(port, batch.requests[_WARM_UP:], rate=RATE)
    came.accepted = [*range(_WARM_UP), *(_WARM_UP + place for place in came.accepted)]
    pruned.sent += len(batch.requests)
    pruned.accepted += len(came.accepted)
    verify(url, batch, came)
    return came
