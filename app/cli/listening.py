"""Takes the address to listen at, before anything else is started."""

import socket

_BACKLOG = 2048


class AddressTaken(Exception):
    """The address can't be listened at; the text names the variables."""


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to `host` and `port` (0: any free one). Raises `AddressTaken`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named so that the event loop recognises TCP, and switches Nagle's algorithm off.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        # At once: until somebody listens, a second process may bind the same address, and neither would know.
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        message = (
            f"RECEIVER_HOST, RECEIVER_PORT: got {host} and {port}; can't listen there "
            f"({error.strerror or type(error).__name__}): give an address of this machine and a free port"
        )
        raise AddressTaken(message) from error
    return listener
