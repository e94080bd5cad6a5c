"""Twenty thousand lost callbacks found by polls, how well the budget of requests is kept and used, and none in vain."""

import bisect
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from bench import events, load, servers
from bench.driving import track
from bench.machine import cpu_seconds, seconds_kept_waiting
from bench.pairs import Ceiling
from bench.results import Results, spread
from bench.servers import Server
from bench.world import World, on_postgres

LOST = 20_000
RATE = 200
TIMES = 3
HEARD_OF = 1000
_GRACE = 5
_RATE_SECONDS = 15
_MOST_SECONDS = 65.0
_DUE = """
WITH opened AS (
    INSERT INTO generations (id, status, model, rivya_object, first_seen_at, last_number, revision, polls)
    SELECT 'task_lost_' || n, 'queued', 'z-image', '{}', $2::timestamptz, 1, 1, 0 FROM generate_series(1, $1::int) AS n
    RETURNING *
)
INSERT INTO polls (generation_id, model, first_seen_at, source, state, next_poll_at, polls, failures, not_found_count)
SELECT id, model, first_seen_at, 'submit', 'watching', first_seen_at, 0, 0, 0 FROM opened
"""
_OPEN = "SELECT count(*) FROM polls"
_SETTLED = "SELECT count(*) FILTER (WHERE settled_by = 'webhook'), coalesce(sum(polls), 0) FROM generations"


@dataclass(slots=True)
class Runs:
    """What came of all runs so far."""

    left: int = 0
    seconds: list[float] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)
    """Processor time of the server for one poll, by what a request of the ceiling takes."""
    waited: list[float] = field(default_factory=list)
    """Share of the time in which the server could have run and others did: it is not the server's."""
    most: list[float] = field(default_factory=list)
    used: list[float] = field(default_factory=list)


def run(world: World, results: Results) -> None:
    """Without a limit that matters and with one, in turns; then with callbacks that come."""
    runs = Runs()
    for _ in range(TIMES):
        _all_lost(world, runs)
        _paced(world, runs)
    results.add(
        f"{LOST:,} lost callbacks, Rivya answering in 50 ms, one process",
        target="all settled in ≤ 20 s",
        measured=f"{TIMES * LOST - runs.left:,} of {TIMES * LOST:,} settled, in {spread(runs.seconds, '.0f')} s each",
        is_reached=not runs.left and statistics.median(runs.seconds) <= 20,
    )
    results.add(
        f"RECEIVER_POLL_RATE={RATE}, as Rivya sees it",
        target=f"≤ {RATE} in any second, ≥ 95 % used",
        measured=f"at most {spread(runs.most, '.0f')} in a second, {spread(runs.used, '.1%')} used",
        is_reached=max(runs.most) <= RATE and statistics.median(runs.used) >= 0.95,
    )
    results.note(
        f"a poll costs the server {spread(runs.costs, '.1f')} times the processor time of a request of the ceiling; "
        f"for {spread(runs.waited, '.0%')} of the time it was ready to run and others had its core"
    )
    _none_in_vain(world, results)


def _all_lost(world: World, runs: Runs) -> None:
    with servers.ceiling(core=world.server_core) as ceiling:
        _, cost = Ceiling(ceiling).run()
    url = _due(world)
    with servers.rivya(core=world.other_core) as rivya, _receiver(world, url, rivya, rate=10_000) as ours:
        used, waited, started = cpu_seconds(ours.pid), seconds_kept_waiting(ours.pid), time.perf_counter()
        left = LOST
        while left and time.perf_counter() < started + _MOST_SECONDS:
            time.sleep(0.5)
            left = int(on_postgres(url, lambda connection: connection.fetchval(_OPEN)))
        seconds = time.perf_counter() - started
        runs.waited.append((seconds_kept_waiting(ours.pid) - waited) / seconds)
        runs.costs.append((cpu_seconds(ours.pid) - used) / max(LOST - left, 1) / cost)
    runs.seconds.append(seconds + ours.seconds_to_live)
    runs.left += left
    world.drop(url)


def _paced(world: World, runs: Runs) -> None:
    url = _due(world)
    with servers.rivya(core=world.other_core) as rivya, _receiver(world, url, rivya, rate=RATE):
        time.sleep(_RATE_SECONDS)
        arrivals = _arrivals(rivya)
    runs.most.append(max(bisect.bisect_right(arrivals, at + 1) - number for number, at in enumerate(arrivals)))
    runs.used.append((len(arrivals) - 1) / (arrivals[-1] - arrivals[0]) / RATE)
    world.drop(url)


def _none_in_vain(world: World, results: Results) -> None:
    """Generations are tracked, their callbacks come, and the time at which they would be overdue passes."""
    url, settled, polls, asked = world.fresh("postgresql"), 0, 0, 0
    with servers.rivya(core=world.other_core) as rivya, _receiver(world, url, rivya, rate=RATE) as ours:
        for number in range(TIMES):
            batch = events.make(f"heard{number}", HEARD_OF)
            load.run([ours.port], [track(it) for it in batch.generation_ids], connections=16, seconds=60)
            load.run([ours.port], batch.requests, connections=16, seconds=60)
        time.sleep(_GRACE + 2)
        settled, polls = on_postgres(url, lambda batch: batch.fetchrow(_SETTLED))
        asked = len(_arrivals(rivya))
    results.add(
        f"polls of {TIMES * HEARD_OF:,} generations whose callbacks come",
        target="0",
        measured=f"{asked} requests to Rivya and {polls} polls recorded, {settled:,} settled by callbacks",
        is_reached=asked == 0 and polls == 0 and settled == TIMES * HEARD_OF,
    )
    world.drop(url)


def _receiver(world: World, url: str, rivya: Server, *, rate: int) -> Any:  # noqa: ANN401 - a context manager's
    base = f"http://127.0.0.1:{rivya.port}"
    changes = {"RIVYA_BASE_URL": base, "RECEIVER_POLL_RATE": str(rate), "RECEIVER_POLL_GRACE": str(_GRACE)}
    return servers.receiver(url, core=world.server_core, **changes)


def _arrivals(rivya: Server) -> Sequence[float]:
    answer = servers.ask(rivya.port, "/arrivals") or b""
    return sorted(orjson.loads(answer.partition(b"\r\n\r\n")[2]))


def _due(world: World) -> str:
    url, past = world.fresh("postgresql"), datetime.now(UTC) - timedelta(minutes=5)

    async def act(connection: Any) -> None:  # noqa: ANN401 - asyncpg tells no types
        await connection.execute(_DUE, LOST, past)
        await connection.execute("ANALYZE generations, polls")

    on_postgres(url, act)
    return url
