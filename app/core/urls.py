"""Checks URLs, those in settings and those of programs, to which notifications are sent.

Rivya calls only HTTPS on a public host, without credentials, query or fragment. Notifications go to public addresses by
https, and to what an allow list of the operator names. Programs choose their URLs, so each of them could make the
receiver call its own network. Such a URL is checked twice: its text by `parse_target`, and every address that its name
resolves to by `check_addresses`, at each attempt anew.
"""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, urlsplit

import idna

from app.core.errors import ServiceError

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


Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

LONGEST_URL: Final = 2048
DEFAULT_PORTS: Final = {"https": 443, "http": 80}
_LONGEST_HOST: Final = 253
_HOST: Final = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
"""Programs read a host that ends in such a label as an IPv4 address: 127.1, 0x7f.1, 2130706433."""
_LOCAL_NAMES: Final = ("localhost", "local", "internal", "localdomain", "home.arpa", "lan")


def _networks(text: str) -> tuple[Network, ...]:
    return tuple(map(ipaddress.ip_network, text.split()))


# The registries of special addresses (RFC 6890). Not `is_global`, whose answers change with releases of Python.
_SPECIAL_V4: Final = _networks(
    "0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24 "
    "192.31.196.0/24 192.52.193.0/24 192.88.99.0/24 192.168.0.0/16 192.175.48.0/24 198.18.0.0/15 198.51.100.0/24 "
    "203.0.113.0/24 224.0.0.0/4 240.0.0.0/4"
)
_UNICAST_V6: Final = ipaddress.IPv6Network("2000::/3")
"""All else is special: mapped, compatible and translated IPv4 (NAT64), unique local, link-local, multicast."""
_SPECIAL_V6: Final = _networks("2001::/23 2001:db8::/32 2002::/16 2620:4f:8000::/48 3fff::/20")
"""Among them Teredo (2001::/32) and 6to4 (2002::/16), which hide an IPv4 address."""
_LOCAL: Final = _networks("10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 172.16.0.0/12 192.168.0.0/16 ::1/128 fc00::/7")
"""What a name in an allow list may lead to; the rest of the special addresses only a network in it opens."""
_METADATA: Final = _networks("100.100.100.200 168.63.129.16 fd00:ec2::254 fd20:ce::254")
"""Services of clouds that give a machine's credentials to whoever asks; the others are link-local."""


class UrlRejected(ServiceError):
    """400: nothing may be sent to this URL; the message says what would be right."""

    status = 400
    code = "webhook_url_rejected"


@dataclass(frozen=True, slots=True)
class AllowList:
    """The hosts and networks that may be called although they are private, also with plain http."""

    hosts: frozenset[str] = frozenset()
    suffixes: tuple[str, ...] = ()
    """Each begins with a dot: the names below it, not the name itself."""
    networks: tuple[Network, ...] = ()

    @classmethod
    def parse(cls, text: str) -> "AllowList":
        """The comma separated hosts, `*.suffix` and networks. Raises `ValueError` that names the wrong entry."""
        entries = [entry for part in text.split(",") if (entry := part.strip(" \t\r\n\"'"))]
        hosts, suffixes, networks = set[str](), list[str](), list[Network]()
        for position, entry in enumerate(entries, start=1):
            network = _network(entry)
            host = _ascii(entry.removeprefix("*."))
            if network is not None:
                networks.append(network)
            elif host is None or _ends_in_number(host):
                message = (
                    f"entry {position} must be a host, *.suffix or a network, such as shop,*.example.com,10.0.0.0/8"
                )
                raise ValueError(message)
            elif entry.startswith("*."):
                suffixes.append(f".{host}")
            else:
                hosts.add(host)
        return cls(frozenset(hosts), tuple(suffixes), tuple(networks))

    def __bool__(self) -> bool:
        return bool(self.hosts or self.suffixes or self.networks)

    def __str__(self) -> str:
        return ",".join([*sorted(self.hosts), *(f"*{suffix}" for suffix in self.suffixes), *map(str, self.networks)])

    def has_host(self, host: str) -> bool:
        """Whether it names this host."""
        return host in self.hosts or host.endswith(self.suffixes)

    def has_address(self, address: Address) -> bool:
        """Whether one of its networks has this address."""
        return any(address in network for network in self.networks)


@dataclass(frozen=True, slots=True)
class Target:
    """What a URL names; `host` is ASCII, in lower case, without brackets, and perhaps an address."""

    scheme: str
    host: str
    port: int
    path: str
    """With the query; begins with a slash."""

    @property
    def address(self) -> Address | None:
        """The address, where the URL has one in place of a name."""
        try:
            return ipaddress.ip_address(self.host)
        except ValueError:
            return None

    @property
    def authority(self) -> str:
        """The value of the header Host."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


def parse_target(url: str, allow: AllowList) -> Target:
    """The target of a URL whose text is allowed. Its addresses are still to be checked. Raises `UrlRejected`."""
    target = _split_target(url)
    address = target.address
    if address is not None:
        check_addresses(target, [address], allow)
    elif not allow.networks and not allow.has_host(target.host):  # else its addresses decide
        if target.scheme != "https":
            raise UrlRejected(_HTTPS)
        if is_local_name(target.host):
            raise UrlRejected(_PUBLIC)
    return target


def _split_target(url: str) -> Target:
    if len(url) > LONGEST_URL:
        raise UrlRejected(f"The URL must have {LONGEST_URL} characters at most.")
    if not url.isprintable() or any(character.isspace() or character == "\\" for character in url):
        raise UrlRejected("The URL must not contain spaces, control characters or backslashes.")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or parts.scheme not in DEFAULT_PORTS or port == 0:
        raise UrlRejected("The URL must be absolute, such as https://example.com/hook.")
    if "@" in parts.netloc or "#" in url:
        raise UrlRejected("The URL must not carry credentials or a fragment.")
    path = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
    return Target(parts.scheme, _checked_host(host, parts.netloc), port or DEFAULT_PORTS[parts.scheme], path)


_HTTPS: Final = "The URL must use https; the operator of the receiver can allow plain http for single hosts."
_PUBLIC: Final = "The URL must lead to a public address; the operator of the receiver can allow single private ones."


def check_addresses(target: Target, addresses: Iterable[Address], allow: AllowList) -> None:
    """Raise `UrlRejected` unless the target may be called at each of these addresses."""
    is_named = allow.has_host(target.host)
    for address in addresses:
        if allow.has_address(address):
            continue
        if not is_public(address) and not (is_named and _is_local(address)):
            raise UrlRejected(_PUBLIC)
        if target.scheme != "https" and not is_named:
            raise UrlRejected(_HTTPS)


def is_public(address: Address) -> bool:
    """Whether it is an ordinary address of the internet, which hides no other address."""
    if any(address in network for network in _METADATA):
        return False
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _SPECIAL_V4)
    is_isatap = int(address) >> 32 & 0xFDFFFFFF == 0x5EFE  # RFC 5214: an IPv4 address in the last 32 bits
    return address in _UNICAST_V6 and not is_isatap and not any(address in network for network in _SPECIAL_V6)


def is_local_name(name: str) -> bool:
    """Whether only the network around a machine knows such a name (lower case, without a dot at its end)."""
    return "." not in name or name.endswith(tuple(f".{local}" for local in _LOCAL_NAMES))


def _is_local(address: Address) -> bool:
    return any(address in network for network in _LOCAL) and not any(address in network for network in _METADATA)


def _checked_host(host: str, netloc: str) -> str:
    """The host in the form of `Target`. Raises `UrlRejected`."""
    if netloc.startswith("["):
        try:
            address = ipaddress.IPv6Address(host)
        except ValueError:
            address = None
        if address is None or "%" in host:
            raise UrlRejected("The URL must have an IPv6 address without a zone between its brackets.")
        return str(address)
    name = _ascii(host)
    if name is None:
        raise UrlRejected("The URL must name a host, such as example.com.")
    if _ends_in_number(name) and _network(name) is None:
        raise UrlRejected("The URL must write an IPv4 address as four decimal numbers without leading zeros.")
    return name


def _ascii(host: str) -> str | None:
    """The host name in ASCII and lower case without the dot at its end, None if it is none."""
    if not host.isascii():
        try:
            host = idna.encode(host, uts46=True).decode()
        except idna.IDNAError:
            return None
    name = host.lower().removesuffix(".")
    return name if len(name) <= _LONGEST_HOST and _HOST.fullmatch(name) else None


def _ends_in_number(name: str) -> bool:
    return _NUMBER.fullmatch(name.rpartition(".")[2]) is not None


def _network(text: str) -> Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None
