"""A thousand callers who wait: how many statements a settled generation costs, and how soon everybody knows."""

import select
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

from app.fastpath.settlement import SETTLE
from app.ledger.postgres import BY_ID, write_statement
from bench import events, servers
from bench.load import is_whole
from bench.results import Results, spread
from bench.statement_log import StatementLog, logged_statements
from bench.world import World, on_postgres

CLIENTS = 1000
TIMES = 3
MILLISECONDS = 200.0
_DELIVERING = 64
_COMMITS = (SETTLE, write_statement("changed", "delivered", "moved", "counted", "bodies", "closed", "expected"))
"""What a batch of callbacks for known generations writes, at once or after it was read."""
_OPEN = """
WITH opened AS (
    INSERT INTO generations (id, status, model, rivya_object, first_seen_at, last_number, revision, polls)
    SELECT id, 'queued', 'z-image', '{}', $2, 1, 1, 0 FROM unnest($1::text[]) AS id RETURNING *
)
INSERT INTO polls (generation_id, first_seen_at, source, state, next_poll_at, polls, failures, not_found_count)
SELECT id, first_seen_at, 'submit', 'watching', first_seen_at + interval '1 day', 0, 0, 0 FROM opened
"""


@dataclass(slots=True)
class Woken:
    """What came of one round."""

    latencies: list[float] = field(default_factory=list)
    """Milliseconds from when the delivery was sent, which is before its commit, to the answer."""
    reads: int = 0
    commits: int = 0


def run(world: World, results: Results) -> None:
    """All wait for the same generation; then each for another."""
    url = world.fresh("postgresql")
    with logged_statements(world, url) as log, servers.receiver(url, core=world.server_core) as ours:
        same = [_round(url, ours.port, log, f"same{number}", generations=1) for number in range(TIMES)]
        each = [_round(url, ours.port, log, f"each{number}", generations=CLIENTS) for number in range(TIMES)]
    _report(same, f"{CLIENTS:,} clients wait for one generation", results)
    _report(each, f"{CLIENTS:,} clients wait for {CLIENTS:,} generations, settled in one go", results)
    world.drop(url)


def _report(rounds: Sequence[Woken], what: str, results: Results) -> None:
    slowest = [max(it.latencies) for it in rounds]
    results.add(
        what,
        target=f"one statement per commit that wakes, ≤ {MILLISECONDS:.0f} ms",
        measured=f"{sum(it.reads for it in rounds)} reads for {sum(it.commits for it in rounds)} commits, "
        f"the last answer {spread(slowest, '.0f')} ms after its delivery was sent",
        is_reached=all(it.reads <= it.commits and len(it.latencies) == CLIENTS for it in rounds)
        and max(slowest) <= MILLISECONDS,
    )


def _round(url: str, port: int, log: StatementLog, name: str, *, generations: int) -> Woken:
    batch = events.make(name, generations)
    on_postgres(url, partial(_open, batch.generation_ids))
    waiting = [_connected(port) for _ in range(CLIENTS)]
    for number, client in enumerate(waiting):
        client.sendall(_wait(batch.generation_ids[number % generations]))
    _idle(log)
    before = len(log.statements())
    delivering = [_connected(port) for _ in range(min(_DELIVERING, generations))]
    woken = Woken(_Exchange(waiting, delivering, batch.requests).latencies())
    for each in (*waiting, *delivering):
        each.close()
    statements = log.statements()[before:]
    woken.reads = sum(_is(BY_ID, it) for it in statements)
    woken.commits = sum(any(_is(each, it) for each in _COMMITS) for it in statements)
    return woken


async def _open(ids: Sequence[str], connection: Any) -> None:  # noqa: ANN401 - asyncpg tells no types
    await connection.execute(_OPEN, list(ids), datetime.now(UTC))


def _connected(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=10)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _wait(generation_id: str) -> bytes:
    path = f"/api/v1/generations/{generation_id}?wait=60"
    return f"GET {path} HTTP/1.1\r\nHost: r\r\nAuthorization: Bearer {servers.TOKEN}\r\n\r\n".encode()


def _idle(log: StatementLog) -> None:
    """Until everybody's first look has been answered: no more reads come."""
    before = -1
    while before != (before := sum(_is(BY_ID, it) for it in log.statements())) or before == 0:
        time.sleep(1)


def _is(statement: str, logged: str) -> bool:
    # The log indents the second line and those after it.
    return logged.replace("\n\t", "\n").startswith(statement[:200]) and statement.count("UNION") == logged.count(
        "UNION"
    )


class _Exchange:
    """Sends every delivery, a connection's next one once its last one is answered, and clocks those who waited."""

    def __init__(
        self, waiting: Sequence[socket.socket], delivering: Sequence[socket.socket], requests: Sequence[bytes]
    ) -> None:
        self._requests = requests
        self._next = iter(range(len(requests)))
        self._sent = [0.0] * len(requests)
        self._places = {client.fileno(): number % len(requests) for number, client in enumerate(waiting)}
        self._sockets = {each.fileno(): each for each in (*waiting, *delivering)}
        self._rest: dict[int, bytes] = {}
        self._latencies: list[float] = []

    def latencies(self) -> list[float]:
        """Milliseconds of each who waited; fewer than there are where ten seconds bring nothing."""
        with select.epoll() as poll:
            for number in self._sockets:
                poll.register(number, select.EPOLLIN)
                if number not in self._places:
                    self._send(number)
            while len(self._latencies) < len(self._places) and (ready := poll.poll(10, 1024)):
                for number, _ in ready:
                    self._receive(number)
        return self._latencies

    def _send(self, number: int) -> None:
        place = next(self._next, -1)
        if place >= 0:
            self._sent[place] = time.perf_counter()
            self._sockets[number].sendall(self._requests[place])

    def _receive(self, number: int) -> None:
        answer = self._rest.pop(number, b"") + self._sockets[number].recv(65536)
        if not is_whole(answer):
            self._rest[number] = answer
            return
        if not answer.startswith(b"HTTP/1.1 200") or (number in self._places and b'"succeeded"' not in answer):
            raise AssertionError(answer[:200])
        if number in self._places:
            self._latencies.append((time.perf_counter() - self._sent[self._places[number]]) * 1000)
        else:
            self._send(number)
