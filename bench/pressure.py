"""More than can be taken: a thousand connections for a minute, several processes, and how soon a process is there."""

import statistics
import threading
from functools import partial

from bench import events, load, servers
from bench.intake import deliver
from bench.load import Load
from bench.machine import resident_bytes
from bench.results import Results, spread
from bench.verify import verify
from bench.world import World

CONNECTIONS = 1024
SECONDS = 60.0
_SEGMENT = 10.0
_FASTEST = 12_000
_MEBIBYTE = 1024 * 1024


def run(world: World, results: Results) -> None:
    """On PostgreSQL."""
    _overload(world, results)
    _processes(world, results)
    _start(world, results)


def _overload(world: World, results: Results) -> None:
    url = world.fresh("postgresql")
    with servers.receiver(url, core=world.server_core) as ours:
        before = deliver(url, ours, "calm", connections=64)
        largest, is_over = [0], threading.Event()
        watcher = threading.Thread(target=partial(_watch, ours.pid, largest, is_over))
        watcher.start()
        came = [_segment(url, ours, f"storm{number}") for number in range(int(SECONDS / _SEGMENT))]
        is_over.set()
        watcher.join()
        after = deliver(url, ours, "after", connections=64, seconds=2)
    slowest = max(it.percentile(99) for it in came)
    resident, kept = largest[0] / _MEBIBYTE, after.per_second / before.per_second
    statuses = sorted({status for it in came for status in it.statuses})
    results.add(
        f"{CONNECTIONS:,} connections for {SECONDS:.0f} s",
        target="RSS < 250 MB, only 200 and 503, accepted p99 ≤ 1 s, full speed within 2 s after",
        measured=f"{resident:.0f} MiB, {statuses}, p99 {slowest:.0f} ms, {kept:.0%} of the speed before",
        is_reached=resident < 238 and set(statuses) <= {200, 503} and slowest <= 1000 and kept >= 0.9,
    )
    world.drop(url)


def _segment(url: str, ours: servers.Server, name: str) -> Load:
    made = events.make(name, int(_SEGMENT * _FASTEST))  # made anew each time: a signature is good for 300 seconds
    came = load.run([ours.port], made.requests, connections=CONNECTIONS, seconds=_SEGMENT)
    verify(url, made, came)
    return came


def _watch(pid: int, largest: list[int], is_over: threading.Event) -> None:
    while not is_over.wait(0.2):
        largest[0] = max(largest[0], resident_bytes(pid))


def _processes(world: World, results: Results) -> None:
    rates: dict[int, list[float]] = {}
    for number in range(3):
        for count in (1, 2, 4):
            url = world.fresh("postgresql")
            rates.setdefault(count, []).append(_together(world, url, count, f"n{number}x{count}"))
            world.drop(url)
    one, two, four = (statistics.median(rates[count]) for count in (1, 2, 4))
    results.add(
        "two and four processes on one PostgreSQL, sharing the server's core",
        target="nothing lost or doubled, never slower than one",
        measured=", ".join(f"{count}: {spread(found, ',.0f')}/s" for count, found in rates.items()),
        is_reached=min(two, four) >= one * 0.95,
    )


def _together(world: World, url: str, count: int, name: str) -> float:
    """Deliveries per second by `count` processes that share the server's core."""
    with servers.receiver(url, core=world.server_core) as first:
        if count == 1:
            return deliver(url, first, name, connections=64, seconds=2).per_second
        with servers.receivers(url, count - 1, core=world.server_core) as others:
            ports = [first.port, *(other.port for other in others)]
            made = events.make(name, 2 * _FASTEST)
            came = load.run(ports, made.requests, connections=64, seconds=2)
            verify(url, made, came)
            return came.per_second


def _start(world: World, results: Results) -> None:
    seconds = []
    for _ in range(3):
        url = world.fresh("postgresql")
        with servers.receiver(url, core=world.server_core) as ours:
            seconds.append(ours.seconds_to_live)
        world.drop(url)
    results.add(
        "/livez after the start of the process",
        target="≤ 2 s",
        measured=f"{spread(seconds, '.2f')} s",
        is_reached=statistics.median(seconds) <= 2,
    )
