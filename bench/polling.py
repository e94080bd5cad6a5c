"""Twenty thousand lost callbacks found by polls, and how well the budget of requests is kept and used."""

import bisect
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from bench import servers
from bench.results import Results
from bench.world import World, on_postgres

LOST = 20_000
RATE = 200
_RATE_SECONDS = 15
_MOST_SECONDS = 150.0
_DUE = """
INSERT INTO generations (id, status, model, rivya_object, first_seen_at, last_number, revision, tracking, next_poll_at,
    polls, poll_failures, not_found_count)
SELECT 'task_lost_' || n, 'queued', 'z-image', '{}', $2::timestamptz, 1, 1, 'watching', $2::timestamptz, 0, 0, 0
FROM generate_series(1, $1::int) AS n
"""
_OPEN = "SELECT count(*) FROM generations WHERE settled_at IS NULL"


def run(world: World, results: Results) -> None:
    """First without a limit that matters, then with one."""
    _all_lost(world, results)
    _paced(world, results)


def _all_lost(world: World, results: Results) -> None:
    url = _due(world)
    with servers.rivya(core=world.other_core) as rivya:
        started = time.perf_counter()
        base = f"http://127.0.0.1:{rivya.port}"
        with servers.receiver(url, core=world.server_core, RIVYA_BASE_URL=base, RECEIVER_POLL_RATE="10000"):
            left = LOST
            while left and time.perf_counter() < started + _MOST_SECONDS:
                time.sleep(0.5)
                left = int(on_postgres(url, lambda made: made.fetchval(_OPEN)))
            seconds = time.perf_counter() - started
    results.add(
        f"{LOST:,} lost callbacks, Rivya answering in 50 ms, one process",
        target="all settled in ≤ 60 s",
        measured=f"{LOST - left:,} settled in {seconds:.0f} s, start of the process included",
        is_reached=not left and seconds <= 60,
    )
    world.drop(url)


def _paced(world: World, results: Results) -> None:
    url = _due(world)
    with servers.rivya(core=world.other_core) as rivya:
        base = f"http://127.0.0.1:{rivya.port}"
        with servers.receiver(url, core=world.server_core, RIVYA_BASE_URL=base, RECEIVER_POLL_RATE=str(RATE)):
            time.sleep(_RATE_SECONDS)
            answer = servers.ask(rivya.port, "/arrivals") or b""
    arrivals: list[float] = orjson.loads(answer.partition(b"\r\n\r\n")[2])
    most = max(bisect.bisect_right(arrivals, at + 1) - number for number, at in enumerate(arrivals))
    used = (len(arrivals) - 1) / (arrivals[-1] - arrivals[0]) / RATE
    results.add(
        f"RECEIVER_POLL_RATE={RATE}, as Rivya sees it",
        target=f"≤ {RATE} in any second, ≥ 95 % used",
        measured=f"at most {most} in a second, {used:.1%} used",
        is_reached=most <= RATE and used >= 0.95,
    )
    world.drop(url)


def _due(world: World) -> str:
    url, past = world.fresh("postgresql"), datetime.now(UTC) - timedelta(minutes=5)

    async def act(connection: Any) -> None:  # noqa: ANN401 - asyncpg tells no types
        await connection.execute(_DUE, LOST, past)
        await connection.execute("ANALYZE generations")

    on_postgres(url, act)
    return url
