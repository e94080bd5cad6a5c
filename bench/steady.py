"""A load at a fixed rate: each request has its moment, and its latency counts from that, sent late or not."""

import gc
import select
import socket
import time
from collections import deque
from collections.abc import Sequence

from bench.load import Load, is_whole

_STALLED_SECONDS = 30.0


def paced(port: int, requests: Sequence[bytes], *, rate: float, connections: int = 16) -> Load:
    """Send all requests, so many a second; whoever finds no free connection waits for one, and that counts."""
    connections_by_number = {}
    for _ in range(connections):
        connection = socket.create_connection(("127.0.0.1", port), timeout=10)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connections_by_number[connection.fileno()] = connection
    gc.collect()
    gc.disable()
    try:
        return _send_all(connections_by_number, requests, rate)
    finally:
        gc.enable()
        for connection in connections_by_number.values():
            connection.close()


def _send_all(connections: dict[int, socket.socket], requests: Sequence[bytes], rate: float) -> Load:
    load, idle, under_way = Load(), deque(connections), dict[int, tuple[int, float, bytes]]()
    with select.epoll() as epoll:
        for number in connections:
            epoll.register(number, select.EPOLLIN)
        started, sent = time.perf_counter(), 0
        while sent < len(requests) or under_way:
            due = started + sent / rate
            while sent < len(requests) and idle and due <= time.perf_counter():
                number = idle.popleft()  # in turn: one that is left alone is closed after seconds
                connections[number].sendall(requests[sent])
                under_way[number] = sent, due, b""
                sent += 1
                due = started + sent / rate
            is_waiting = sent < len(requests) and bool(idle)
            ready = epoll.poll(max(due - time.perf_counter(), 0) if is_waiting else _STALLED_SECONDS)
            if not ready and not is_waiting:
                load.lost += len(under_way)
                break
            for number, _ in ready:
                _receive(load, connections[number], idle, under_way)
    load.seconds = time.perf_counter() - started
    return load


def _receive(
    load: Load, connection: socket.socket, idle: deque[int], under_way: dict[int, tuple[int, float, bytes]]
) -> None:
    place, due, rest = under_way[connection.fileno()]
    received = connection.recv(65536)
    if not received:
        raise ConnectionResetError("the server closed a connection in mid-request")
    if not is_whole(answer := rest + received):
        under_way[connection.fileno()] = place, due, answer
        return
    status = int(answer[9:12])
    load.statuses[status] += 1
    if status < 300:
        load.latencies.append(time.perf_counter() - due)
        load.accepted.append(place)
    del under_way[connection.fileno()]
    idle.append(connection.fileno())
