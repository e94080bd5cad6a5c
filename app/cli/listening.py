"""Takes the address to listen at, before anything else is started, and gives it up without losing a caller."""

import asyncio
import select
import socket

_BACKLOG = 2048
_BETWEEN_LOOKS = 0.002
_MOST_LOOKS = 500


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


async def close_when_empty(listener: socket.socket) -> None:
    """Refuse new connections once those in the kernel's queue have been accepted, or after 1 second.

    Closed with connections in the queue, the kernel would reset them: callers that believed to be connected.
    """
    listener.listen(0)  # a queue as short as can be: under load it might never be empty
    for _ in range(_MOST_LOOKS):
        if not select.select([listener], [], [], 0)[0]:
            break
        await asyncio.sleep(_BETWEEN_LOOKS)
    listener.shutdown(
        socket.SHUT_RDWR
    )  # now, whoever else holds the socket: the event loop closes it when it comes to it
    listener.close()
