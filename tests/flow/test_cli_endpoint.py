"""`rivya-receiver endpoint` and `keys rotate`: what is registered, and what an admin can change of it."""

import asyncio
import json
from pathlib import Path

from app.sandbox.server import serve_sandbox
from tests.support.commands import Ended, command
from tests.support.receivers import ENCRYPTION_KEY, environment, receiver

NOBODY = "http://127.0.0.1:9"


async def run(words: str, url: str, directory: Path) -> Ended:
    return await command(words, environment(NOBODY, url, 1), directory)


async def test_a_registered_endpoint_is_shown_rotated_and_unpinned(tmp_path: Path, sqlite_url: str) -> None:
    async with serve_sandbox() as rivya:
        async with receiver(rivya, sqlite_url, tmp_path):
            rotated = await run("endpoint rotate", sqlite_url, tmp_path)
        shown, document = [await run(f"endpoint{option}", sqlite_url, tmp_path) for option in ("", " --json")]
        unpinned = await run("endpoint repin", sqlite_url, tmp_path)
        reencrypted = await run("keys rotate", sqlite_url, tmp_path)
        [endpoint] = rivya.sandbox.endpoints.by_id
    assert [ended.status for ended in (rotated, shown, unpinned, reencrypted)] == [0] * 4
    assert rotated.output.startswith("a new secret is stored; ")
    assert "endpoint.rotation_requested" in rotated.errors
    assert shown.output.splitlines()[0] == f"endpoint {endpoint}"
    assert "  secret       current, " in shown.output
    [view] = json.loads(document.output)["endpoints"]
    assert (document.status, view["rivya_id"], view["secret_count"]) == (0, endpoint, 2)
    assert json.loads(document.output)["history"][0]["endpoint_id"] == view["id"]
    assert "history, newest first:" in shown.output
    assert unpinned.output.startswith("no longer pinned: ")
    assert reencrypted.output.startswith("0 of 2 stored secrets encrypted anew")
    assert ENCRYPTION_KEY not in "".join(
        ended.output + ended.errors for ended in (rotated, shown, document, reencrypted)
    )


async def test_without_an_endpoint_nothing_is_shown_or_changed(tmp_path: Path, sqlite_url: str) -> None:
    commands = ("endpoint", "endpoint rotate")
    shown, rotated = await asyncio.gather(*(run(words, sqlite_url, tmp_path) for words in commands))
    assert (shown.status, shown.output) == (1, "no endpoint yet: `rivya-receiver serve` registers it\n")
    assert (rotated.status, rotated.output) == (1, "")
    assert rotated.errors.startswith("No endpoint is registered yet")


def test_a_database_that_is_not_there_is_not_created(tmp_path: Path) -> None:
    ended = asyncio.run(run("keys rotate", "sqlite+aiosqlite:///./nowhere.db", tmp_path))
    assert ended.status == 1
    assert ended.errors.startswith("DATABASE_URL: ")
    assert list(tmp_path.iterdir()) == []
