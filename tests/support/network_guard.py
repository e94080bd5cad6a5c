"""No test talks to the world: a connection or a look-up that would leave this machine is refused and fails the test."""

import ipaddress
import socket
from collections.abc import Callable
from typing import Any

_LOOPBACK_NAMES = frozenset({"localhost", "ip6-localhost", "", None})


class OutsideWorldError(OSError):
    """A test tried to leave the machine."""


class NetworkGuard:
    """Stands before `connect` and `getaddrinfo` and remembers what it refused, for code that swallows the error."""

    def __init__(self, *, allowed_hosts: frozenset[str] = frozenset()) -> None:
        self.refused: list[str] = []
        self._allowed = allowed_hosts | {address for host in allowed_hosts for address in _addresses(host)}

    def connecting(self, connect: Callable[..., Any]) -> Callable[..., Any]:
        """`socket.connect` or `connect_ex`, for addresses on this machine only."""

        def guarded(sock: socket.socket, address: Any) -> Any:
            if sock.family in {socket.AF_INET, socket.AF_INET6}:
                self._require_local(address[0])
            return connect(sock, address)

        return guarded

    def resolving(self, getaddrinfo: Callable[..., Any]) -> Callable[..., Any]:
        """`socket.getaddrinfo`, for names that need no name server."""

        def guarded(host: Any, *arguments: Any, **options: Any) -> Any:
            self._require_local(host)
            return getaddrinfo(host, *arguments, **options)

        return guarded

    def _require_local(self, host: str | bytes | None) -> None:
        name = host.decode() if isinstance(host, bytes) else host
        if name in self._allowed or _is_local(name):
            return
        self.refused.append(str(name))
        raise OutsideWorldError(f"a test may not reach {name!r}: only this machine")


def _is_local(name: str | None) -> bool:
    if name in _LOOPBACK_NAMES:
        return True
    try:
        address = ipaddress.ip_address(str(name).partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _addresses(host: str) -> set[str]:
    return {str(entry[4][0]) for entry in socket.getaddrinfo(host, None)}
