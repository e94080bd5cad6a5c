"""Checks header values, and the URLs in settings: Rivya calls only HTTPS on a public host, without a query."""

import ipaddress
from urllib.parse import SplitResult, urlsplit

from app.core.addresses import is_local_name, is_public

API_PATH = "/api/v1"


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine."""
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def checked_base_url(url: str) -> str:
    """`url` without `API_PATH` and a slash at its end: HTTPS, or plain HTTP to this machine.

    Raises `ValueError` that says what would be right.
    """
    parts = _split(url)
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise ValueError("must be https; plain http is for a sandbox on this machine only")
    return url.rstrip("/").removesuffix(API_PATH).rstrip("/")


def checked_public_url(url: str, *, may_be_local: bool = False) -> str:
    """`url` without its trailing slash, if Rivya accepts it for an endpoint.

    `may_be_local`: Rivya is a sandbox on this machine, so plain HTTP and private addresses are allowed too.

    Raises `ValueError` that says what would be right.
    """
    parts = _split(url)
    if may_be_local:
        return url.rstrip("/")
    if parts.scheme != "https":
        raise ValueError("must begin with https://, since Rivya calls nothing else")
    host = parts.hostname or ""
    if _is_private(host):
        raise ValueError("must be a host that Rivya can reach from outside, not a loopback, private or reserved one")
    return url.rstrip("/")


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise ValueError("is not a URL; write https://host/path") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("is not a URL; write https://host")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not carry credentials")
    if parts.fragment or parts.query or url.rstrip().endswith(("#", "?")):
        raise ValueError("must not carry a query or a fragment")
    if any(character.isspace() for character in url):
        raise ValueError("must not contain spaces")
    return parts


def _is_private(host: str) -> bool:
    name = host.rstrip(".").lower()
    try:
        return not is_public(ipaddress.ip_address(name))
    except ValueError:
        # Some programs read 127.1 and 0x7f.1 as addresses, and no name ends like this.
        return name.rpartition(".")[2][:1].isdigit() or is_local_name(name)


def is_header_value(text: str) -> bool:
    """Whether a header carries `text` unchanged: printable ASCII, not empty, without spaces at its ends."""
    return bool(text) and text.isascii() and text.isprintable() and text == text.strip()
