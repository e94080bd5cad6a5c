"""A Rivya that answers every poll with success after 50 ms, and remembers when each came; `python -m bench.rivya PORT`.

GET /arrivals tells the moments in seconds, as the kernel noted them: on a busy machine this process may look later.
Plain sockets and epoll, since it shares a core with PostgreSQL and the generator.
"""

import select
import socket
import struct
import sys
import time
from collections import deque
from dataclasses import dataclass

import orjson

from bench.events import settled

SECONDS = 0.05
_GENERATIONS = b"/api/v1/generations/"
_NOTE_ARRIVALS = 35  # Linux's SO_TIMESTAMPNS, for which Python has no name
_TIMESTAMP = struct.Struct("qq")


@dataclass(slots=True, eq=False)
class Connection:
    """One of a caller's, who sends a request once the last one is answered."""

    socket: socket.socket
    rest: bytes = b""


class Rivya:
    """Answers polls in the order in which they came, everything else at once."""

    def __init__(self, port: int) -> None:
        self._listening = socket.create_server(("127.0.0.1", port), backlog=1024)
        self._epoll = select.epoll()
        self._epoll.register(self._listening.fileno(), select.EPOLLIN)
        self._connections: dict[int, Connection] = {}
        self._due: deque[tuple[float, Connection, bytes]] = deque()
        self._arrivals: list[float] = []

    def run_once(self) -> None:
        """Take what has come and answer what is due; waits until there is something to do."""
        wait = max(self._due[0][0] - time.monotonic(), 0.0) if self._due else -1.0
        for number, _ in self._epoll.poll(wait):
            if number == self._listening.fileno():
                self._accept()
            else:
                self._receive(self._connections[number])
        while self._due and self._due[0][0] <= time.monotonic():
            _, connection, target = self._due.popleft()
            self._say(connection, settled(target.removeprefix(_GENERATIONS).decode()))

    def _accept(self) -> None:
        accepted, _ = self._listening.accept()
        accepted.setsockopt(socket.SOL_SOCKET, _NOTE_ARRIVALS, 1)
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connections[accepted.fileno()] = Connection(accepted)
        self._epoll.register(accepted.fileno(), select.EPOLLIN)

    def _receive(self, connection: Connection) -> None:
        try:
            data, notes, _, _ = connection.socket.recvmsg(65536, 256)
        except OSError:
            data, notes = b"", []
        if not data:
            self._epoll.unregister(connection.socket.fileno())
            del self._connections[connection.socket.fileno()]
            connection.socket.close()
            return
        connection.rest += data
        if b"\r\n\r\n" not in connection.rest:
            return
        head, connection.rest = connection.rest, b""
        target = head.split(b" ", 2)[1]
        if target.startswith(_GENERATIONS):
            self._arrivals.append(_arrived_at(notes))
            self._due.append((time.monotonic() + SECONDS, connection, target))
            return
        self._say(connection, self._arrivals if target == b"/arrivals" else {"object": "list", "data": []})
        if b"\r\nConnection: close" in head:
            connection.socket.shutdown(socket.SHUT_WR)

    def _say(self, connection: Connection, answer: object) -> None:
        body = orjson.dumps(answer)
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
        if connection.socket.fileno() >= 0:  # else the caller has left
            connection.socket.sendall(head + body)


def _arrived_at(notes: list[tuple[int, int, bytes]]) -> float:
    for level, kind, data in notes:
        if (level, kind) == (socket.SOL_SOCKET, _NOTE_ARRIVALS):
            seconds, nanoseconds = _TIMESTAMP.unpack(data)
            return float(seconds + nanoseconds / 1e9)
    return time.time()  # another kernel


if __name__ == "__main__":
    rivya = Rivya(int(sys.argv[1]))
    while True:
        rivya.run_once()
