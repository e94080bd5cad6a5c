"""`rivya-receiver config` and `migrate`: what a deployment is set to, and its database brought up to date."""

import json
import sqlite3
from pathlib import Path

from app.core.migrations import head
from app.core.settings import Settings
from tests.support.commands import Ended, command
from tests.support.receivers import ENCRYPTION_KEY, environment

FAR_AWAY = "postgresql://receiver:hidden-password@127.0.0.1:1/receiver"


async def migrate(words: str, url: str, directory: Path) -> Ended:
    return await command(f"migrate {words}", {"DATABASE_URL": url}, directory)


async def test_migrate_brings_an_empty_database_up_to_date_and_back(tmp_path: Path, empty_database_url: str) -> None:
    url = empty_database_url
    before, migrated, again, after, down, gone = [
        await migrate(words, url, tmp_path) for words in ("--check", "", "", "--check", "--down base", "--check")
    ]
    assert (before.status, before.output) == (1, f"at none; this release is written for {head()}\n")
    assert (migrated.status, migrated.output) == (
        0,
        f"at {head()}, was at none; this release is written for {head()}\n",
    )
    assert [(each.status, each.output) for each in (again, after)] == 2 * [
        (0, f"at {head()}; this release is written for {head()}\n")
    ]
    assert (down.status, down.output) == (0, f"at none, was at {head()}; this release is written for {head()}\n")
    assert gone.status == 1


async def test_the_sql_of_migrate_is_what_migrate_does(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'receiver.db'}"
    printed = await migrate("--sql", url, tmp_path)
    assert printed.status == 0
    assert not (tmp_path / "receiver.db").exists()
    connection = sqlite3.connect(tmp_path / "receiver.db")
    connection.executescript(printed.output)
    connection.close()
    checked = await migrate("--check --json", url, tmp_path)
    assert json.loads(checked.output) == {"revision": head(), "before": head(), "wanted": head(), "done": True}
    assert (await migrate("--sql", url, tmp_path)).output.strip() == ""


async def test_migrate_says_in_one_line_why_it_can_not(tmp_path: Path, sqlite_url: str) -> None:
    away, unknown, wrong = [
        await migrate(words, url, tmp_path)
        for words, url in (("", FAR_AWAY), ("--down 4711", sqlite_url), ("", "mysql://somewhere/receiver"))
    ]
    assert away.status == unknown.status == 1
    assert away.errors.startswith("DATABASE_URL: the database can't be reached (")
    assert unknown.errors.startswith("Can't locate revision identified by '4711'; this release knows ")
    assert (wrong.status, wrong.errors.startswith("DATABASE_URL: ")) == (2, True)
    assert [len(each.errors.splitlines()) for each in (away, unknown, wrong)] == [1, 1, 1]


async def test_config_shows_where_each_setting_comes_from_and_no_secret(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("rvya_sk_of_a_file\n")
    settings = {**environment("http://127.0.0.1:9", FAR_AWAY, 1), "RIVYA_API_KEY_FILE": "key"}
    token = settings["RECEIVER_API_TOKENS"].rpartition(":")[2]
    del settings["RIVYA_API_KEY"]
    (tmp_path / ".env").write_text("RECEIVER_POLL_RATE=2\n")
    table, document = [await command(f"config{option}", settings, tmp_path) for option in ("", " --json")]
    rows = {row["name"].lower(): (row["value"], row["source"]) for row in json.loads(document.output)}
    assert set(rows) == set(Settings.model_fields)
    assert rows["rivya_api_key"] == ("**********", "key")
    assert rows["receiver_poll_rate"] == (2, ".env")
    assert rows["receiver_retention_days"] == (90, "default")
    assert rows["database_url"] == ("postgresql+asyncpg://receiver:***@127.0.0.1:1/receiver", "environment")
    for secret in ("rvya_sk_of_a_file", "hidden-password", ENCRYPTION_KEY, token):
        assert secret not in table.output + document.output + table.errors + document.errors


async def test_config_refuses_settings_that_are_wrong(tmp_path: Path) -> None:
    ended = await command("config", {"RECEIVER_PORT": "many"}, tmp_path)
    assert (ended.status, ended.output) == (2, "")
    assert "RECEIVER_PORT: got 'many'" in ended.errors
