"""Every test runs sealed off from the world and the environment, and on both databases where it asks for one."""

import gc
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from sqlalchemy import make_url

from tests.support.certificate_store import read_certificates_once
from tests.support.databases import (
    Databases,
    GivenServer,
    PooledDatabases,
    PostgresDatabases,
    PostgresServer,
    SqliteDatabases,
)
from tests.support.event_loop import TidyLoop
from tests.support.memory_files import temporary_root
from tests.support.network_guard import NetworkGuard
from tests.support.pgbouncer import pgbouncer
from tests.support.postgres import PostgresCluster
from tests.support.run_counts import RunCounts, begin, is_over, note

BOTH = ("sqlite", "postgresql")
GIVEN_SERVER = "DATABASE_URL_TEST"
POOLER = "DATABASE_POOLER_TEST"
"""`transaction` runs what uses PostgreSQL behind a PgBouncer in that mode."""
# What a deployment would set, what would send a loopback request through somebody's proxy, and whom TLS trusts.
_UNWANTED = ("RIVYA_", "RECEIVER_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "SSL_CERT_", "SSLKEYLOGFILE")

read_certificates_once()
tempfile.tempdir = temporary_root()  # before anything makes a directory: pytest's and the clusters' lie in it

settings.register_profile(
    "ci", deadline=None, derandomize=True, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "soak", settings.get_profile("ci"), derandomize=False, max_examples=int(os.environ.get("SOAK_EXAMPLES", "2000"))
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


REPORTED = "reported"
"""The property under which a test records what its output is to tell, whichever process it ran in."""


def pytest_collection_finish() -> None:
    """Keep the collector off what was imported and collected, and run it less often: it took a fifth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(5000, 10, 10)


def pytest_runtest_setup() -> None:
    """What a soak has no time for is left out."""
    begin()
    if is_over():
        pytest.skip("the time of this part of the soak is up")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """That a test has run is something, too."""
    if report.when == "call":
        note(RunCounts())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what tests have recorded as `REPORTED`."""
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        for name, text in report.user_properties:
            if name == REPORTED and report.when == "call":
                terminalreporter.write_line(f"{report.nodeid}\n  {text}")


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, object]]:
    """Plain asyncio: uvloop connects in C, where the seal cannot see it. The real process is tested with uvloop."""
    return "asyncio", {"loop_factory": TidyLoop}


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """The PostgreSQL server of this session: our own cluster, or the one that DATABASE_URL_TEST names."""
    given = os.environ.get(GIVEN_SERVER)
    if given:
        yield GivenServer(given)
        return
    with PostgresCluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def sqlite_databases(tmp_path_factory: pytest.TempPathFactory) -> SqliteDatabases:
    """Where SQLite databases come from."""
    return SqliteDatabases(tmp_path_factory.mktemp("sqlite"))


@pytest.fixture(scope="session")
def postgres_databases(
    postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PostgresDatabases]:
    """Where PostgreSQL databases come from."""
    if os.environ.get(POOLER) == "transaction":
        folder = tmp_path_factory.mktemp("pgbouncer")
        with pgbouncer(postgres.url("postgres"), folder, mode="transaction") as pooler:
            databases: PostgresDatabases = PooledDatabases(postgres, pooler=pooler)
            yield databases
            databases.close()
        return
    databases = PostgresDatabases(postgres)
    yield databases
    databases.close()


@pytest.fixture(scope="session", params=BOTH)
def databases(request: pytest.FixtureRequest) -> Databases:
    """Where databases come from: whoever uses this, or a fixture below, runs once on each kind."""
    source: Databases = request.getfixturevalue(
        {"sqlite": "sqlite_databases", "postgresql": "postgres_databases"}[request.param]
    )
    return source


@pytest.fixture
def database_url(databases: Databases) -> Iterator[str]:
    """A fresh database with our tables in it."""
    url = databases.migrated()
    yield url
    databases.drop(url)


@pytest.fixture
def empty_database_url(databases: Databases) -> Iterator[str]:
    """A fresh database with nothing in it."""
    url = databases.empty()
    yield url
    databases.drop(url)


@pytest.fixture
def sqlite_url(sqlite_databases: SqliteDatabases) -> Iterator[str]:
    """A fresh SQLite database with our tables in it, for what does not depend on the kind of database."""
    url = sqlite_databases.migrated()
    yield url
    sqlite_databases.drop(url)


@pytest.fixture(scope="module")
def shared_sqlite_url(sqlite_databases: SqliteDatabases) -> Iterator[str]:
    """One SQLite database with our tables in it, for all tests of a file that do not mind each other's rows."""
    url = sqlite_databases.migrated()
    yield url
    sqlite_databases.drop(url)


@pytest.fixture(scope="module")
def shared_database_url(databases: Databases) -> Iterator[str]:
    """One database of each kind with our tables in it, for all tests of a file that do not mind each other's rows."""
    url = databases.migrated()
    yield url
    databases.drop(url)


@pytest.fixture
def empty_postgres_url(postgres_databases: PostgresDatabases) -> Iterator[str]:
    """A fresh PostgreSQL database with nothing in it."""
    url = postgres_databases.empty()
    yield url
    postgres_databases.drop(url)


@pytest.fixture
def postgres_url(postgres_databases: PostgresDatabases) -> Iterator[str]:
    """A fresh PostgreSQL database with our tables in it, for what only PostgreSQL can do."""
    url = postgres_databases.migrated()
    yield url
    postgres_databases.drop(url)


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting of this shell and no `.env` of this folder decides how a test ends."""
    for name in list(os.environ):
        if name.upper().startswith(_UNWANTED) or name == "DATABASE_URL":
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def _usual_file_rights() -> Iterator[None]:
    """A command run in this process takes rights from new files, and would do so in the tests after it."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture(autouse=True)
def _sealed(monkeypatch: pytest.MonkeyPatch, _network_guard: NetworkGuard) -> Iterator[None]:
    """A test that tries to leave this machine fails, whether or not the code under test swallows the refusal."""
    already = len(_network_guard.refused)
    monkeypatch.setattr(socket.socket, "connect", _network_guard.connecting(socket.socket.connect))
    monkeypatch.setattr(socket.socket, "connect_ex", _network_guard.connecting(socket.socket.connect_ex))
    monkeypatch.setattr(socket, "getaddrinfo", _network_guard.resolving(socket.getaddrinfo))
    yield
    refused = _network_guard.refused[already:]
    if refused:
        pytest.fail(f"this test tried to reach {', '.join(sorted(set(refused)))}")


@pytest.fixture(scope="session")
def _network_guard() -> NetworkGuard:
    given = os.environ.get(GIVEN_SERVER)
    return NetworkGuard(allowed_hosts=frozenset({make_url(given).host or "localhost"} if given else ()))
