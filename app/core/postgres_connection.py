"""How a connection to PostgreSQL is made, for SQLAlchemy's pool and for the direct one."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import asyncpg

from app.core.database_url import PostgresOptions

_SECONDS_TO_CONNECT: Final = 5.0
_SECONDS_FOR_STATEMENT: Final = 35.0
_IN_STARTUP: Final = "application_name"

Connection = Any
"""An `asyncpg.Connection`: the package has no types."""


async def connect(
    options: PostgresOptions, settings: Mapping[str, str], *, statement_seconds: float | None = _SECONDS_FOR_STATEMENT
) -> Connection:
    """A connection whose session has `settings`, except where the URL's own `options` name another value.

    The hosts are tried in their order, each for its share of five seconds or for `connect_timeout`.

    Raises what asyncpg raises, and `OSError`, for the host that was tried last.
    """
    ours = {name: value for name, value in settings.items() if name not in options.settings_named}
    startup = {**{name: ours.pop(name) for name in (_IN_STARTUP,) if name in ours}, **options.startup}
    seconds = options.connect_seconds or _SECONDS_TO_CONNECT / len(options.hosts)
    failure: Exception | None = None
    for target in _targets(options.target_session_attrs):
        for host, port in options.hosts:
            try:
                async with asyncio.timeout(seconds):
                    return await _connect(
                        ours,
                        **options.driver,
                        host=host or None,
                        port=port,
                        user=options.user,
                        password=options.password,
                        database=options.database,
                        target_session_attrs=target,
                        command_timeout=statement_seconds,
                        server_settings=startup,
                    )
            except (OSError, asyncpg.CannotConnectNowError) as error:
                failure = error
            except asyncpg.TargetServerAttributeNotMatched:  # to SQLAlchemy it would be an error of the statement
                failure = ConnectionError(f"the server is not {target}")
    assert failure is not None  # noqa: S101 - there is at least one host
    raise failure


def _targets(wanted: str | None) -> tuple[str | None, ...]:
    return ("standby", "any") if wanted == "prefer-standby" else (wanted,)


async def _connect(settings: Mapping[str, str], **arguments: Any) -> Connection:  # noqa: ANN401 - those of asyncpg
    connection = await asyncpg.connect(**arguments)
    # Not in the startup packet: PgBouncer refuses those that it does not know. One statement is one round trip.
    try:
        calls = (f"set_config({_literal(name)}, {_literal(value)}, false)" for name, value in settings.items())
        await connection.execute(f"SELECT {', '.join(calls)}")
    except BaseException:
        connection.terminate()
        raise
    return connection


def _literal(text: str) -> str:
    return "E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"
