"""Which database URLs are understood, and how they are written for the drivers we use."""

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

_DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "sqlite+aiosqlite": "sqlite+aiosqlite",
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
    "postgresql+asyncpg": "postgresql+asyncpg",
}


def normal_url(url: str) -> str:
    """`url` with the driver we use (plain `postgresql://…` is understood).

    Raises `ValueError` with a message that says what would be right, without the password.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        message = (
            "is not a database URL; write sqlite+aiosqlite:///./receiver.db or postgresql+asyncpg://user@host/name"
        )
        raise ValueError(message) from error
    driver = _DRIVERS.get(parsed.drivername)
    if driver is None:
        message = f"names {parsed.drivername}; write sqlite+aiosqlite:///… or postgresql+asyncpg://…"
        raise ValueError(message)
    if driver.startswith("sqlite") and parsed.database in (None, "", ":memory:"):
        message = "is in memory, which would lose everything; name a file: sqlite+aiosqlite:///./receiver.db"
        raise ValueError(message)
    return parsed.set(drivername=driver).render_as_string(hide_password=False)
