"""What was said to one database, as PostgreSQL's log tells it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import make_url

from bench.world import World, on_postgres

_STATEMENT = re.compile(r"LOG:  (?:execute [^:]*|statement): (.*(?:\n\t.*)*)")


class StatementLog:
    """What the log has gained since this was made."""

    def __init__(self, world: World) -> None:
        self._cluster = world.cluster
        self._before = len(self._cluster.log())

    def statements(self) -> list[str]:
        """As they were sent, in order."""
        return _STATEMENT.findall(self._log())

    def _log(self) -> str:
        return self._cluster.log()[self._before :]


@contextmanager
def logged_statements(world: World, url: str) -> Iterator[StatementLog]:
    """Sessions that begin within the block have their statements written to the log, without parameters."""
    with _set(url, {"log_statement": "all", "log_parameter_max_length": "0"}):
        yield StatementLog(world)


@contextmanager
def _set(url: str, settings: dict[str, str]) -> Iterator[None]:
    database = make_url(url).database
    _alter(url, [f"ALTER DATABASE \"{database}\" SET {name} = '{value}'" for name, value in settings.items()])
    try:
        yield
    finally:
        _alter(url, [f'ALTER DATABASE "{database}" RESET ALL'])


def _alter(url: str, statements: list[str]) -> None:
    on_postgres(url, lambda connection: connection.execute("; ".join(statements)))
