"""Reads database URLs: SQLAlchemy's for SQLite, and libpq's, which hosting services give, for PostgreSQL."""

import getpass
import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, quote, unquote, urlencode

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

_DRIVERS: Final = {
    "sqlite": "sqlite+aiosqlite",
    "sqlite+aiosqlite": "sqlite+aiosqlite",
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
    "postgresql+asyncpg": "postgresql+asyncpg",
    "postgres+asyncpg": "postgresql+asyncpg",
    "postgresql+psycopg": "postgresql+asyncpg",
    "postgresql+psycopg2": "postgresql+asyncpg",
}
"""Our drivers by what stands before `://`; URLs that name another driver of the same database mean that database."""
_NOT_A_URL: Final = (
    "is not a database URL; write sqlite+aiosqlite:///./receiver.db or postgresql://user@host/name, "
    "with special characters of the password percent-encoded"
)
# A password may hold raw "@"s, or a raw "/", or a raw "?", as SQLAlchemy and libpq allow, but not two of them: it would
# not be sure where the host begins.
_POSTGRES: Final = re.compile(
    r"(?P<driver>postgres(?:ql)?(?:\+\w+)?)://"
    r"(?:(?P<user>[^:/@?]*)(?::(?P<password>[^/?]*|[^@/]*|[^@?]*))?@)?"
    r"(?P<hosts>[^/?@]*)(?:/(?P<database>[^?@]*))?(?:\?(?P<query>.*))?",
    re.DOTALL,
)
_ADDRESS: Final = re.compile(r"(?P<socket>/.*)|(?:\[(?P<v6>[^\]]+)\]|(?P<name>[^:\[\]]*))(?::(?P<port>\d*))?")
_BARE_IPV6: Final = re.compile(r"[0-9a-fA-F:.]*:[0-9a-fA-F:.]*:[0-9a-fA-F:.%\w]*")
_NAMED_BY_OPTIONS: Final = re.compile(r"(?:-c\s*|--)([\w.-]+)\s*=")
_TLS_VERSIONS: Final = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")
# Parameters that asyncpg itself reads from a URL.
_FOR_DRIVER: Final[Mapping[str, tuple[str, ...]]] = {
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "sslnegotiation": ("postgres", "direct"),
    "ssl_min_protocol_version": _TLS_VERSIONS,
    "ssl_max_protocol_version": _TLS_VERSIONS,
    "sslrootcert": (),
    "sslcert": (),
    "sslkey": (),
    "sslpassword": (),
    "sslcrl": (),
    "passfile": (),
    "service": (),
    "krbsrvname": (),
    "gsslib": ("gssapi", "sspi"),
}
# Parameters that asyncpg does not know, with the values that ask for what it does anyway.
_WITHOUT_EFFECT: Final[Mapping[str, tuple[str, ...]]] = {
    "channel_binding": ("disable", "prefer"),
    "client_encoding": ("utf8", "UTF8", "utf-8", "UTF-8"),
    "fallback_application_name": (),
    "gssencmode": ("disable", "prefer"),
    "load_balance_hosts": ("disable",),
    "sslcompression": ("0",),
    "sslsni": ("1",),
}
_FOR_US: Final[Mapping[str, tuple[str, ...]]] = {
    "host": (),
    "port": (),
    "user": (),
    "password": (),
    "dbname": (),
    "application_name": (),
    "connect_timeout": (),
    "options": (),
    "target_session_attrs": ("any", "primary", "standby", "read-write", "read-only", "prefer-standby"),
}
_POOLER: Final = "pgbouncer"
"""`pgbouncer=true`, as Prisma and Supabase write it, says that a transaction pooler is in between."""
_ALLOWED: Final = {**_FOR_DRIVER, **_WITHOUT_EFFECT, **_FOR_US, _POOLER: ("true", "false")}
_OF_OTHERS: Final = re.compile(
    r"keepalives(_idle|_interval|_count)?|tcp_user_timeout|replication|requirepeer|require_auth|requiressl|hostaddr|"
    r"ssl(crldir|certmode|accept|identity|inline|_ca)|gssdelegation|scram_(client|server)_key|m(in|ax)_protocol_version|"
    r"connection_limit|(pool|socket|command|statement|lock|idle_in_transaction_session)_timeout|timeout|"
    r"pool_(size|recycle|pre_ping)|max_(overflow|conns|connections)|(prepared_)?statement_cache_size|preparethreshold|"
    r"schema|currentschema|search_path|server_settings|charset|encoding|timezone|role|servicefile|uselibpqcompat|"
    r"async_fallback|sockettimeout",
    re.IGNORECASE,
)
"""Parameters of libpq and of other drivers, which can be named although we do not support them."""
_OTHER_NAMES: Final = {"ssl": "sslmode", "database": "dbname"}
"""Names that SQLAlchemy and asyncpg use for the same parameters."""
_OTHER_SSL_MODES: Final = {
    **dict.fromkeys(("true", "1", "on", "yes", "no-verify"), "require"),
    **dict.fromkeys(("false", "0", "off", "no"), "disable"),
}
"""What `ssl=true` of JDBC and of Node.js means for libpq."""
_VARIABLES: Final = {
    "PGSSLMODE": "sslmode",
    "PGSSLNEGOTIATION": "sslnegotiation",
    "PGSSLMINPROTOCOLVERSION": "ssl_min_protocol_version",
    "PGSSLMAXPROTOCOLVERSION": "ssl_max_protocol_version",
    "PGGSSLIB": "gsslib",
    "PGTARGETSESSIONATTRS": "target_session_attrs",
}
"""Variables that asyncpg reads where the URL says nothing, and that have few values."""


@dataclass(frozen=True, slots=True)
class PostgresOptions:
    """The options of connections to PostgreSQL that a URL gives."""

    hosts: tuple[tuple[str, int | None], ...]
    """At least one: name, address or directory of Unix sockets, with its port; "" and None: the driver's default."""
    user: str | None
    database: str | None
    password: str | None = field(repr=False)
    driver: Mapping[str, Any] = field(repr=False)
    """Arguments of `asyncpg.connect`, mostly for TLS."""
    startup: Mapping[str, str]
    """Parameters of the startup packet."""
    target_session_attrs: str | None
    connect_seconds: float | None
    has_transaction_pooler: bool
    """Each transaction may run in another session: nothing of one may be relied on in the next."""

    @property
    def settings_named(self) -> frozenset[str]:
        """The session settings to which `options` gives a value; we must not set them."""
        names = _NAMED_BY_OPTIONS.findall(self.startup.get("options", ""))
        return frozenset(name.replace("-", "_").lower() for name in names)


def normal_url(url: str) -> str:
    """`url` with the driver we use, without white space around it; plain `postgresql://…` is accepted.

    Raises `ValueError` with a message that says what would be right, without the password.
    """
    url = url.strip()
    scheme, _, rest = url.partition(":")
    if _DRIVERS.get(scheme) == "postgresql+asyncpg":
        postgres_options(url)
        return f"postgresql+asyncpg:{rest}"
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise ValueError(_NOT_A_URL) from None
    driver = _DRIVERS.get(parsed.drivername)
    if driver is None:
        raise ValueError("is for another database or driver; write sqlite+aiosqlite:///… or postgresql+asyncpg://…")
    if parsed.database in (None, "", ":memory:"):
        raise ValueError("is in memory, which would lose everything; name a file: sqlite+aiosqlite:///./receiver.db")
    return parsed.set(drivername=driver).render_as_string(hide_password=False)


def with_transaction_pooler(url: str) -> str:
    """`url` of `normal_url`, saying that a transaction pooler is in between; one for SQLite unchanged."""
    if not url.startswith("postgres") or postgres_options(url).has_transaction_pooler:
        return url
    return f"{url}{'&' if '?' in url.rpartition('@')[2] else '?'}{_POOLER}=true"


def postgres_options(url: str) -> PostgresOptions:
    """The options in a PostgreSQL URL with libpq's parameters.

    Raises `ValueError` for anything not supported; the message names the parameter and shows no value.
    """
    parts = _POSTGRES.fullmatch(url)
    if parts is None:
        raise ValueError(_NOT_A_URL)
    given = _parameters(parts["query"] or "")
    hosts = _default_ports(_hosts(given.get("host") or parts["hosts"] or _host_variable(), given.get("port", "")))
    _check_variables(given)
    seconds = given.get("connect_timeout")
    if seconds is not None and not re.fullmatch(r"[1-9][0-9]{0,3}", seconds):
        raise ValueError("has a connect_timeout that is no whole number of seconds, 1 to 9999")
    options = PostgresOptions(
        hosts=hosts,
        user=given.get("user") or unquote(parts["user"] or "") or _default_user(),
        password=given.get("password") or unquote(parts["password"] or "") or None,
        database=given.get("dbname") or unquote(parts["database"] or "") or None,
        driver=_driver_arguments({name: value for name, value in given.items() if name in _FOR_DRIVER}),
        startup={name: given[name] for name in ("application_name", "options") if name in given},
        # Of several hosts some may be standbys, which take no writes.
        target_session_attrs=given.get("target_session_attrs", "read-write" if len(hosts) > 1 else None),
        connect_seconds=None if seconds is None else float(seconds),
        has_transaction_pooler=given.get(_POOLER) == "true",
    )
    if options.settings_named & {"timezone", "client_encoding"}:
        raise ValueError(
            "has options that set timezone or client_encoding, which are UTC and UTF8 here: leave them out"
        )
    return options


def _parameters(query: str) -> dict[str, str]:
    """The parameters, without those that are empty (libpq ignores these) or have no effect."""
    given: dict[str, list[str]] = {}
    # For libpq, + is not a space.
    for position, (name, value) in enumerate(parse_qsl(query.replace("+", "%2B"), keep_blank_values=True), start=1):
        if name == "ssl" or value == "no-verify":
            value = _OTHER_SSL_MODES.get(value.lower(), value)  # noqa: PLW2901 - libpq's word for it
        name = _OTHER_NAMES.get(name, name)  # noqa: PLW2901 - libpq's name of the parameter
        if name not in _ALLOWED:
            # Another name is not shown: it may be what follows a raw "?" in a password.
            shown = name if _OF_OTHERS.fullmatch(name) else f"(number {position})"
            raise ValueError(f"has a parameter {shown} that this service does not support: leave it out")
        if value and _ALLOWED[name] and value not in _ALLOWED[name]:
            raise ValueError(
                f"has {name} with a value that this service does not support; {' or '.join(_ALLOWED[name])}"
            )
        given.setdefault(name, []).append(value)
    if "options" in given:  # SQLAlchemy and many examples write + for a space here
        given["options"] = [" ".join(given["options"]).replace("+", " ")]
    last = {name: ",".join(values) if name == "host" else values[-1] for name, values in given.items()}
    return {name: value for name, value in last.items() if value and name not in _WITHOUT_EFFECT}


def _hosts(hosts: str, ports: str) -> tuple[tuple[str, int | None], ...]:
    """Pairs of host and port from libpq's two lists; a port may also follow its host."""
    named = [_address(host) for host in hosts.split(",")]
    numbers = [_port(port) for port in ports.split(",")]
    if len(numbers) == 1:
        numbers *= len(named)
    if len(numbers) != len(named):
        raise ValueError("names more or fewer ports than hosts")
    if len(named) > 1 and any(not host for host, _ in named):
        raise ValueError(_NOT_A_URL)
    return tuple((host, port or number) for (host, port), number in zip(named, numbers, strict=True))


def _host_variable() -> str:
    hosts = os.environ.get("PGHOST", "")
    try:
        _hosts(hosts, "")
    except ValueError:
        raise ValueError(f"names no host, and PGHOST is no list of hosts: {hosts}") from None
    return hosts


def _default_ports(hosts: tuple[tuple[str, int | None], ...]) -> tuple[tuple[str, int | None], ...]:
    """The hosts with the ports of PGPORT where they have none."""
    ports = os.environ.get("PGPORT", "")
    if all(port is not None for _, port in hosts) or not ports.strip():
        return hosts
    try:
        numbers = [_port(port.strip()) for port in ports.split(",")]
    except ValueError:
        raise ValueError(f"names no port, and PGPORT is no number from 1 to 65535: {ports}; unset it") from None
    if len(numbers) not in (1, len(hosts)):
        raise ValueError(f"names no port, and PGPORT has more or fewer than the hosts: {ports}; unset it")
    numbers *= len(hosts) if len(numbers) == 1 else 1
    return tuple((host, port or number) for (host, port), number in zip(hosts, numbers, strict=True))


def _default_user() -> str | None:
    """None leaves PGUSER, or the account that we run as, to the driver. Raises `ValueError` if there is neither."""
    try:
        if not os.environ.get("PGUSER"):
            getpass.getuser()
    except (KeyError, OSError):
        message = f"names no user, nor does PGUSER, and the account {os.getuid()} that we run as has no name"
        raise ValueError(message) from None
    return None


def _check_variables(given: Mapping[str, str]) -> None:
    for variable, name in _VARIABLES.items():
        value, allowed = os.environ.get(variable), _ALLOWED[name]
        if value and name not in given and value not in allowed:
            raise ValueError(f"is used with {variable}, which must be {' or '.join(allowed)}: {value}; unset it")


def _address(text: str) -> tuple[str, int | None]:
    if _BARE_IPV6.fullmatch(text):
        return text, None
    parts = _ADDRESS.fullmatch(text)
    if parts is None:
        raise ValueError(_NOT_A_URL)
    return parts["socket"] or unquote(parts["v6"] or parts["name"]), _port(parts["port"] or "")


def _port(text: str) -> int | None:
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 65536:
        raise ValueError(_NOT_A_URL)
    return int(text)


def _driver_arguments(given: dict[str, str]) -> dict[str, Any]:
    """Arguments for `asyncpg.connect`, which accepts most of these parameters only in a URL."""
    system = {}
    if given.get("sslrootcert") == "system":
        if given.get("sslmode", "verify-full") != "verify-full" or any(name in given for name in ("sslcert", "sslcrl")):
            raise ValueError("has sslrootcert=system, which goes with sslmode=verify-full, without sslcert and sslcrl")
        given = {name: value for name, value in given.items() if name not in ("sslrootcert", "sslmode")}
        system = {"ssl": True}
    else:
        _require_files(given)
    dsn = {"dsn": f"postgresql://?{urlencode(given, quote_via=quote)}"} if given else {}
    return {**dsn, **system}


def _require_files(given: Mapping[str, str]) -> None:
    """Raise `ValueError` for files that can't be used: else each connection would fail as if the server were down."""
    mode = given.get("sslmode") or os.environ.get("PGSSLMODE", "")
    root = given.get("sslrootcert") or os.environ.get("PGSSLROOTCERT")
    default = Path(os.environ.get("HOME", "/"), ".postgresql", "root.crt")
    if mode.startswith("verify") and not root and not default.exists():
        raise ValueError(f"has sslmode={mode} without sslrootcert: name a file of certificates there, or write system")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for name in ("sslrootcert", "sslcrl", "sslcert"):
        if name not in given:
            continue
        try:
            if name == "sslcert":
                context.load_cert_chain(given[name], given.get("sslkey"), lambda: given.get("sslpassword", ""))
            else:
                context.load_verify_locations(given[name])
        except OSError as error:
            why = error.strerror or type(error).__name__
            raise ValueError(f"has {name} with a file that can't be used ({given[name]}: {why})") from None
    for variable in ("PGSSLROOTCERT", "PGSSLCERT", "PGSSLKEY", "PGSSLCRL"):  # asyncpg reads them as libpq does
        value = os.environ.get(variable)
        if value and mode != "disable" and not Path(value).is_file():
            raise ValueError(f"is used with {variable}, which names a file that can't be used: {value}")
