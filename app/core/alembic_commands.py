"""What `app.core.migrations` does by Alembic. It imports this module when there is something to migrate."""

from io import StringIO
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection

import migrations


def config() -> Config:
    """Alembic's configuration, with the path of the installed migrations."""
    settings = Config()
    settings.set_main_option("script_location", str(Path(migrations.__file__).parent))
    return settings


def migrate(connection: Connection, down_to: str | None) -> None:
    """Migrate to the newest revision, or back to `down_to`. Raises `CommandError` for a revision that isn't known."""
    settings = config()
    settings.attributes["connection"] = connection
    if down_to is None:
        command.upgrade(settings, "head")
    else:
        command.downgrade(settings, down_to)


def sql(dialect: str, since: str | None) -> str:
    """The statements from revision `since` (None: no tables) to the newest one. Raises `CommandError` as `migrate`."""
    settings, written = config(), StringIO()
    settings.output_buffer = written
    settings.attributes["dialect"] = dialect
    command.upgrade(settings, f"{since or 'base'}:head", sql=True)
    return written.getvalue()
