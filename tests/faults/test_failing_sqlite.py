"""SQLite fails in every way it can: 503 with `Retry-After`, no 2xx without a row, and well again within 5 seconds."""

import resource
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from app.ledger.tables import deliveries
from tests.support.failing_database import failing
from tests.support.intake_harness import event as body_of
from tests.support.intake_harness import open_intake


async def test_locked_by_another_process_it_is_503_and_well_again_when_let_go(sqlite_url: str, tmp_path: Path) -> None:
    async with failing(sqlite_url, tmp_path) as service:
        await service.recovered()
        other = sqlite3.connect(sqlite_url.partition(":///")[2], isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        await service.refused()
        other.execute("ROLLBACK")
        other.close()
        await service.recovered()
        await service.polled()


async def test_on_a_full_disk_it_is_503_and_well_again_when_there_is_room(sqlite_url: str, tmp_path: Path) -> None:
    async with failing(sqlite_url, tmp_path, RECEIVER_LOG_FORMAT="json") as service:
        await service.recovered()
        [pid] = service.replicas.pids.values()
        with _no_room(pid, sqlite_url):
            await service.refused(count=1)
            await service.refused()
        await service.recovered()
        await service.polled()


@contextmanager
def _no_room(pid: int, url: str) -> Iterator[None]:
    """No file of that process may grow beyond what its write-ahead log has now: writing is refused by the kernel."""
    path = Path(url.partition(":///")[2] + "-wal")
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (path.stat().st_size + 100, hard))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, hard))


@contextmanager
def _spoilt(monkeypatch: pytest.MonkeyPatch, spoil: Callable[[sqlite3.Connection, str], None]) -> Iterator[None]:
    """Every connection of the driver that is made within asks `spoil` before each statement."""

    class Spoilt(sqlite3.Connection):
        def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
            spoil(self, sql)
            return super().execute(sql, *parameters)

    with monkeypatch.context() as patched:
        patched.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=Spoilt))
        yield


async def test_a_file_that_may_only_be_read_is_503_and_well_again_when_it_may_be_written(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_read_only = True

    def restrict(connection: sqlite3.Connection, statement: str) -> None:
        if statement.startswith("BEGIN"):
            sqlite3.Connection.execute(connection, f"PRAGMA query_only = {int(is_read_only)}")

    with _spoilt(monkeypatch, restrict):
        async with open_intake(sqlite_url) as intake:
            answer = await intake.deliver(body_of())
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "5"), answer.text
            is_read_only = False
            assert (await intake.deliver(body_of())).status_code == 200


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (sqlite3.OperationalError, sqlite3.SQLITE_FULL),
        (sqlite3.OperationalError, sqlite3.SQLITE_READONLY),
        (sqlite3.OperationalError, sqlite3.SQLITE_IOERR),
        (sqlite3.OperationalError, sqlite3.SQLITE_BUSY),
        (sqlite3.OperationalError, sqlite3.SQLITE_ERROR),
        (sqlite3.DatabaseError, sqlite3.SQLITE_CORRUPT),
        (sqlite3.InternalError, sqlite3.SQLITE_INTERNAL),
        (sqlite3.ProgrammingError, sqlite3.SQLITE_MISUSE),
    ],
)
async def test_whatever_sqlite_says_of_its_state_is_not_now(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, kind: type[sqlite3.Error], code: int
) -> None:
    is_failing = True

    def fail(_: sqlite3.Connection, statement: str) -> None:
        if is_failing and statement.startswith("INSERT OR ROLLBACK INTO generations"):
            error = kind("made to fail")
            error.sqlite_errorcode = code
            raise error

    with _spoilt(monkeypatch, fail):
        async with open_intake(sqlite_url) as intake:
            assert (await intake.deliver(body_of())).status_code == 503
            is_failing = False
            assert (await intake.deliver(body_of())).status_code == 200
            assert [row["outcome"] for row in await intake.room.rows(deliveries)] == ["applied"]
