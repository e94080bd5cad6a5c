"""Proxies on both sides: the one to call a URL through, and the ones in front of us that we trust.

httpx reads HTTPS_PROXY, ALL_PROXY and NO_PROXY too, but raises at IPv6 networks and ignores IPv4 networks.
"""

import ipaddress
import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Final
from urllib.parse import urlsplit
from urllib.request import getproxies

import httpx
from starlette.types import Scope

from app.core.urls import Network, is_loopback

_ENTRY: Final = re.compile(r"(?P<host>\[[^\]]*\](?:/\d+)?|[^:]*)(?::(?P<port>\d+))?")

_HOP: Final = re.compile(r"\[(?P<v6>[^\]]*)\](?::\d+)?|(?P<v4>[\d.]+):\d+")  # some proxies add the port


class ProxyInvalid(Exception):
    """A proxy from the environment can't be used; the text names the variable and shows no value."""


def proxy_for(url: str) -> str | None:
    """The URL of the proxy for `url`, None for a direct connection, as plain http and this machine always get.

    Raises `ProxyInvalid`.
    """
    parts = urlsplit(url)
    host, proxies = parts.hostname or "", getproxies()
    name = "https" if proxies.get("https") else "all"
    proxy = proxies.get(name, "").strip()
    if not proxy or parts.scheme != "https" or is_loopback(host):
        return None
    if _is_excepted(host, parts.port or 443, proxies.get("no", "")):
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    with suppress(httpx.InvalidURL):
        parsed = httpx.URL(proxy)
        if parsed.scheme in ("http", "https") and parsed.host:
            return proxy
    message = f"{name.upper()}_PROXY: must be http://host:port or https://host:port; no other kind is supported"
    raise ProxyInvalid(f"{message} (to ask {host} without a proxy, add it to NO_PROXY)")


def _is_excepted(host: str, port: int, exceptions: str) -> bool:
    name = host.rstrip(".").lower()
    for entry in re.split(r"[,\s]+", exceptions.lower()):
        entry = entry.rpartition("://")[2]  # noqa: PLW2901 - without a scheme, which httpx accepts too
        parts = _ENTRY.fullmatch(entry)
        excepted = parts["host"] if parts is not None else entry  # else an IPv6 address without brackets
        if parts is not None and parts["port"] is not None and int(parts["port"]) != port:
            continue
        if excepted == "*" or _is_within(name, excepted):
            return True
    return False


def _is_within(name: str, excepted: str) -> bool:
    """Whether the host is in `excepted`: an address, a network, or a name with its subdomains."""
    try:
        return ipaddress.ip_address(name) in ipaddress.ip_network(re.sub(r"[\[\]]", "", excepted), strict=False)
    except ValueError:
        domain = excepted.removeprefix("*").strip(".")
        return bool(domain) and (name == domain or name.endswith(f".{domain}"))


def client_address(scope: Scope, trusted: Sequence[Network]) -> str | None:
    """The address of the client: the peer's, or if that is a trusted proxy, the one that the proxy names.

    X-Forwarded-For is read from the right, because a client can send any entries at its left.
    """
    client = scope.get("client")
    address = None if client is None else str(client[0])
    forwarded = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for").decode("latin-1")
    for hop in reversed(forwarded.split(",")):
        peer, named = _ip(address or ""), _ip(hop)
        if peer is None or named is None or not any(peer in network for network in trusted):
            break
        address = str(named)
    return address


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    parts = _HOP.fullmatch(text.strip())
    with suppress(ValueError):
        ip = ipaddress.ip_address(text.strip() if parts is None else parts["v6"] or parts["v4"])
        return getattr(ip, "ipv4_mapped", None) or ip
    return None


def parse_networks(text: str) -> tuple[Network, ...]:
    """The networks in a comma separated list of addresses and networks. Raises `ValueError` that names a wrong one."""
    entries = [part.strip() for part in text.split(",") if part.strip()]
    try:
        return tuple(ipaddress.ip_network(entry, strict=False) for entry in entries)
    except ValueError:
        raise ValueError("must be addresses or networks, such as 10.0.0.0/8,fd00::/8") from None
