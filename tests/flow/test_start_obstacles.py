"""A start that can't succeed says why in the log, at `/readyz` and in `check`, and succeeds once it can."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from app.core.database import Database, DatabaseInUse
from app.sandbox.server import serve_sandbox
from tests.support.check_output import checked
from tests.support.commands import wait_for
from tests.support.ports import free_port
from tests.support.receiver_process import serving
from tests.support.receivers import environment, receiver

NOBODY = "http://127.0.0.1:9"


Spoilt = tuple[str, Callable[[], object]]
"""The cause that is told, and what puts it right."""


def _in_a_missing_folder(path: Path) -> Spoilt:
    return f"{path.parent}: No such file or directory (for user id {os.geteuid()})", path.parent.mkdir


def _in_a_file(path: Path) -> Spoilt:
    path.parent.touch()

    def put_right() -> None:
        path.parent.unlink()
        path.parent.mkdir()

    return f"{path.parent}: is not a folder", put_right


def _on_another_file(path: Path) -> Spoilt:
    path.parent.mkdir()
    path.write_text("no database, and longer than the header of one " * 20)
    return "file is not a database", path.unlink


def _on_a_folder(path: Path) -> Spoilt:
    path.mkdir(parents=True)
    return f"{path}: is not a file", path.rmdir


@pytest.mark.parametrize("spoil", [_in_a_missing_folder, _in_a_file, _on_another_file, _on_a_folder])
async def test_a_sqlite_file_that_cannot_be_used_is_named_with_its_cause_until_it_can(
    tmp_path: Path, spoil: Callable[[Path], Spoilt]
) -> None:
    path = tmp_path / "volume" / "receiver.db"
    url = f"sqlite+aiosqlite:///{path}"
    cause, put_right = spoil(path)
    async with serve_sandbox() as rivya:
        checks = await checked(rivya, url)
        assert checks["database"][0] == "FAIL"
        assert cause in checks["database"][1]
        async with receiver(rivya, url, tmp_path, is_ready=False) as service:
            written = await asyncio.to_thread(wait_for, service.process, "start.database_unavailable")
            assert cause in written
            assert cause in (await service.check("start"))["detail"]
            put_right()
            await service.ready()
            with pytest.raises(DatabaseInUse):
                Database(url).lock()


async def test_each_host_that_cannot_be_reached_is_named_and_the_password_is_not(tmp_path: Path) -> None:
    closed, port = free_port(), free_port()
    url = f"postgresql://receiver:hush@receiver-db.invalid,127.0.0.1:{closed}/receiver"
    async with serving(environment(NOBODY, url, port), tmp_path, port=port) as process:
        written = await asyncio.to_thread(wait_for, process, "start.database_unavailable")
    assert "receiver-db.invalid:5432: " in written
    assert f"127.0.0.1:{closed}: " in written
    assert "hush" not in written
