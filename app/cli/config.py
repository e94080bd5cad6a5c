"""The command `config`: shows the settings in force and where each comes from."""

import sys
from datetime import timedelta
from typing import Any

import typer

from app.cli.client.output import print_json, table
from app.core.auth import ApiToken
from app.core.database import Database
from app.core.setting_sources import SettingsInvalid, read_sources
from app.core.settings import Settings, load


def show(*, as_json: bool) -> int:
    """Print each setting in force, its source, and no secret; the exit status is 2 for invalid settings."""
    try:
        settings, sources = load(), read_sources(Settings)
    except SettingsInvalid as error:
        sys.stderr.write(f"{error}\n")
        return 2
    values = dict(settings)
    values["database_url"] = Database(settings.database_url).url.render_as_string(hide_password=True)
    rows = [
        (name.upper(), _shown(value), sources[name][0] if name in sources else "default")
        for name, value in values.items()
    ]
    if as_json:
        print_json([{"name": name, "value": value, "source": source} for name, value, source in rows])
    else:
        typer.echo(table(("SETTING", "VALUE", "FROM"), rows))
    return 0


def _shown(value: Any) -> str | int | float | None:  # noqa: ANN401 - the value of any setting
    """The value for people and programs; a secret becomes asterisks."""
    if value is None or isinstance(value, int | float):
        return value
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, tuple):
        return ", ".join(str(_shown(item)) for item in value)
    return f"{value.name} ({value.role})" if isinstance(value, ApiToken) else str(value)
