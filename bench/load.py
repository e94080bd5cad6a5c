"""The load generator: keep-alive connections in a closed loop, bytes made beforehand, every answer counted.

Plain sockets and epoll: it costs a few microseconds a request, several times less than what it measures. It runs in
this process; `bench.ceiling` prints how much it can offer.
"""

import gc
import select
import socket
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

_RECEIVE = 65536
_STALLED_SECONDS = 30.0


@dataclass(slots=True)
class Load:
    """What came of a run."""

    seconds: float = 0.0
    statuses: Counter[int] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)
    """Seconds, of what was answered 2xx."""
    accepted: list[int] = field(default_factory=list)
    """Places, in the list of requests, of those that were answered 2xx."""
    lost: int = 0
    """Requests whose connection broke before the answer."""

    @property
    def per_second(self) -> float:
        """Answers 2xx per second."""
        return len(self.latencies) / self.seconds if self.seconds else 0.0

    @property
    def sent(self) -> int:
        """How many of the requests were sent, in their order."""
        return self.statuses.total() + self.lost

    def percentile(self, percent: float) -> float:
        """Milliseconds below which this share of the answers 2xx came."""
        if not self.latencies:
            return float("nan")
        ordered = sorted(self.latencies)
        return ordered[min(int(len(ordered) * percent / 100), len(ordered) - 1)] * 1000


@dataclass(slots=True)
class _Connection:
    socket: socket.socket
    place: int = -1
    sent_at: float = 0.0
    rest: bytes = b""


def run(ports: Sequence[int], requests: Sequence[bytes], *, connections: int, seconds: float) -> Load:
    """Send each request at most once over `connections` connections, spread over `ports`, for `seconds`.

    Each connection sends its next request as soon as its last one is answered. Ends early when the requests run out.
    """
    generator = _Generator(requests)
    for number in range(connections):
        generator.connect(ports[number % len(ports)])
    gc.collect()
    gc.disable()
    try:
        return generator.run(seconds)
    finally:
        gc.enable()
        generator.close()


class _Generator:
    def __init__(self, requests: Sequence[bytes]) -> None:
        self._requests = requests
        self._places: Iterator[int] = iter(range(len(requests)))
        self._epoll = select.epoll()
        self._connections: dict[int, _Connection] = {}
        self._load = Load()

    def connect(self, port: int) -> None:
        connection = socket.create_connection(("127.0.0.1", port), timeout=10)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connections[connection.fileno()] = _Connection(connection)
        self._epoll.register(connection.fileno(), select.EPOLLIN)

    def run(self, seconds: float) -> Load:
        connections, load, clock = self._connections, self._load, time.perf_counter
        started = clock()
        deadline, busy = started + seconds, 0
        for connection in connections.values():
            busy += self._send(connection)
        while busy:
            ready = self._epoll.poll(_STALLED_SECONDS, 1024)
            if not ready:
                load.lost += busy
                break
            is_over = clock() > deadline
            for number, _ in ready:
                connection = connections[number]
                status = self._receive(connection)
                if status == 0:
                    continue
                self._count(connection, status)
                if is_over or status < 0 or not self._send(connection):
                    busy -= 1
        load.seconds = clock() - started
        return load

    def close(self) -> None:
        for connection in self._connections.values():
            connection.socket.close()
        self._epoll.close()

    def _send(self, connection: _Connection) -> bool:
        place = next(self._places, -1)
        if place < 0:
            return False
        connection.place, connection.sent_at = place, time.perf_counter()
        connection.socket.sendall(self._requests[place])
        return True

    def _receive(self, connection: _Connection) -> int:
        """The status, 0 while the answer isn't whole, -1 where the connection broke."""
        try:
            received = connection.socket.recv(_RECEIVE)
        except OSError:
            received = b""
        if not received:
            self._epoll.unregister(connection.socket.fileno())
            return -1
        answer = connection.rest + received if connection.rest else received
        if not is_whole(answer):
            connection.rest = answer
            return 0
        connection.rest = b""
        return int(answer[9:12])

    def _count(self, connection: _Connection, status: int) -> None:
        load = self._load
        if status < 0:
            load.lost += 1
            return
        load.statuses[status] += 1
        if status < 300:
            now = time.perf_counter()
            load.latencies.append(now - connection.sent_at)
            load.accepted.append(connection.place)


def is_whole(answer: bytes) -> bool:
    """Nothing of the answer is missing."""
    end = answer.find(b"\r\n\r\n")
    if end < 0:
        return False
    at = answer.find(b"content-length: ", 0, end)
    if at < 0:
        return True  # 204
    length = int(answer[at + 16 : answer.find(b"\r", at)])
    return len(answer) == end + 4 + length
