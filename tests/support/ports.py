"""Loopback ports that nobody else on this machine is using."""

import random
import socket


def free_port() -> int:
    """A TCP port on 127.0.0.1 that was free a moment ago.

    Taken from below the range the kernel gives to outgoing connections: a port of that range can be lost to somebody's
    connection while our server is stopped, and a client that retries it can even end up connected to itself.
    """
    candidates = random.SystemRandom().sample(range(15_000, 32_000), 200)
    for port in candidates:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port between 15000 and 32000 on 127.0.0.1")
