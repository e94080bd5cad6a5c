"""Loopback ports that nobody else on this machine is using."""

import os
import random
import socket
from collections import deque
from collections.abc import Mapping


class Ports:
    """Hands out TCP ports on 127.0.0.1: none again before all others, none that another process of this run hands out.

    A test is given its port some time before a server of its own takes it, its server leaves it while it is restarted,
    and sometimes nobody is to answer there: whoever were given the same one meanwhile would come first.

    They lie below the range the kernel gives to outgoing connections: a port of that range can be lost to somebody's
    connection while our server is stopped, and a client that retries it can even end up connected to itself.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        worker = int(environment.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
        step = int(environment.get("PYTEST_XDIST_WORKER_COUNT", "1"))
        candidates = list(range(15_000 + worker % step, 32_000, step))
        random.SystemRandom().shuffle(candidates)
        self._ports = deque(candidates)

    def take(self) -> int:
        """One that was free a moment ago."""
        for _ in range(len(self._ports)):
            port = self._ports.popleft()
            self._ports.append(port)
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError:
                    continue
                return port
        raise RuntimeError("no free port between 15000 and 32000 on 127.0.0.1")


_PORTS = Ports(os.environ)


def free_port() -> int:
    """A TCP port on 127.0.0.1 that was free a moment ago, and that no other test of this run is given."""
    return _PORTS.take()
