"""Finds the proxy for a URL from HTTPS_PROXY, ALL_PROXY and NO_PROXY.

httpx reads the same variables, but raises at IPv6 networks and brackets, and ignores IPv4 networks.
"""

import ipaddress
import re
from contextlib import suppress
from typing import Final
from urllib.parse import urlsplit
from urllib.request import getproxies

import httpx

from app.core.urls import is_loopback

_ENTRY: Final = re.compile(r"(?P<host>\[[^\]]*\](?:/\d+)?|[^:]*)(?::(?P<port>\d+))?")


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
