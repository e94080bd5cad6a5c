"""Which endpoint URLs are allowed: Rivya's documented rules, or the same with this machine's own network let in."""

import ipaddress
from typing import Literal
from urllib.parse import urlsplit

from app.sandbox.errors import RivyaError


def check_url(url: str, rules: Literal["local", "strict"]) -> None:
    """Raise `webhook_url_rejected` unless the URL may receive deliveries."""
    reason = _fault(url, rules)
    if reason is not None:
        raise RivyaError("webhook_url_rejected", f"The endpoint URL {reason}.")


def _fault(url: str, rules: Literal["local", "strict"]) -> str | None:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return "can't be read"
    if parts.scheme not in ("http", "https") or not host:
        return "must be an absolute https URL"
    if parts.username is not None or parts.password is not None or parts.fragment:
        return "must not carry credentials or a fragment"
    if _is_internal(host) and rules == "local":
        return None
    if parts.scheme != "https":
        return "must use https"
    return "must not point into a private network" if _is_internal(host) else None


def _is_internal(host: str) -> bool:
    """Names without a dot are machines of this network, as in a compose file."""
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return "." not in host or host.endswith((".localhost", ".local", ".internal"))
