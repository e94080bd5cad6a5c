"""What a URL of PostgreSQL's says holds for both kinds of connections: SQLAlchemy's and the direct ones."""

import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
from sqlalchemy import text

from app.core.database import Database
from app.core.database_url import normal_url
from app.core.errors import DatabaseUnavailable
from app.core.migrations import migrate
from app.core.settings import load_database
from tests.support.certificates import write_certificate
from tests.support.pgbouncer import pgbouncer
from tests.support.ports import free_port
from tests.support.postgres import PostgresCluster
from tests.support.postgres_install import unprivileged_account

ROOT = Path(__file__).parents[2]
PASSWORD = "p@:/?#[]%&=+ ü\\'\""
IS_ENCRYPTED = "SELECT ssl::text FROM pg_stat_ssl WHERE pid = pg_backend_pid()"


@dataclass(frozen=True)
class Secured:
    """A server of ours with TLS, a Unix socket, and a user with a password."""

    cluster: PostgresCluster
    folder: Path
    certificate: Path

    def url(self, query: str, *, hosts: str | None = None) -> str:
        hosts = f"127.0.0.1:{self.cluster.port}" if hosts is None else hosts
        return f"postgres://me:{quote(PASSWORD, safe='')}@{hosts}/postgres?{query}"


@pytest.fixture(scope="module")
def secured() -> Iterator[Secured]:
    with tempfile.TemporaryDirectory(prefix="pg-") as name:
        folder = Path(name)
        certificate, key = write_certificate(folder)
        if os.geteuid() == 0:
            account = unprivileged_account()
            for path in (folder, certificate, key):
                os.chown(path, account.pw_uid, account.pw_gid)
        settings = {"ssl_cert_file": str(certificate), "ssl_key_file": str(key), "unix_socket_directories": name}
        with PostgresCluster(ssl="on", **settings) as cluster:
            server = Secured(cluster, folder, certificate)
            escaped = PASSWORD.replace("'", "''")
            asyncio.run(_execute(cluster.url("postgres"), f"CREATE USER me PASSWORD '{escaped}'"))
            access = cluster.data / "pg_hba.conf"
            access.write_text("local all me scram-sha-256\nhost all me all scram-sha-256\n" + access.read_text())
            asyncio.run(_execute(cluster.url("postgres"), "SELECT pg_reload_conf()"))
            yield server


async def _execute(url: str, statement: str) -> None:
    async with opened(url) as database:
        await database.direct.fetch(statement)  # type: ignore[union-attr] # PostgreSQL's


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Database]:
    database = Database(normal_url(url))
    try:
        yield database
    finally:
        await database.dispose()


async def both(url: str, statement: str) -> list[str]:
    """What the statement finds on a connection of either kind."""
    async with opened(url) as database:
        async with database.read() as connection:
            first = (await connection.execute(text(statement))).scalar_one()
        [(second,)] = await database.direct.fetch(statement)  # type: ignore[union-attr] # PostgreSQL's
        return [first, second]


@pytest.mark.parametrize(
    ("query", "is_encrypted"),
    [
        ("sslmode=disable", "false"),
        ("sslmode=prefer", "true"),
        ("sslmode=require", "true"),
        ("ssl=require", "true"),
        ("sslmode=verify-full&sslrootcert={certificate}", "true"),
        ("sslmode=require&channel_binding=prefer&gssencmode=disable", "true"),
    ],
)
async def test_sslmode_decides_whether_a_connection_is_encrypted(
    secured: Secured, query: str, is_encrypted: str
) -> None:
    url = secured.url(query.format(certificate=secured.certificate))
    assert await both(url, IS_ENCRYPTED) == [is_encrypted] * 2


async def test_a_server_without_tls_is_not_used_where_tls_is_required(postgres_url: str) -> None:
    with pytest.raises(DatabaseUnavailable):
        await both(f"{postgres_url}?sslmode=require", "SELECT 'x'")


async def test_a_certificate_that_the_given_one_has_not_signed_is_refused(secured: Secured, tmp_path: Path) -> None:
    other, _ = write_certificate(tmp_path)
    with pytest.raises(DatabaseUnavailable):
        await both(secured.url(f"sslmode=verify-ca&sslrootcert={other}"), "SELECT 'x'")


async def test_a_unix_socket_may_be_named_in_the_query_or_as_the_host(secured: Secured) -> None:
    statement = "SELECT COALESCE(inet_client_addr()::text, 'socket')"
    in_query = secured.url(f"host={secured.folder}&port={secured.cluster.port}", hosts="")
    as_host = secured.url("", hosts=f"{quote(str(secured.folder), safe='')}:{secured.cluster.port}")
    assert await both(in_query, statement) == ["socket"] * 2
    assert await both(as_host, statement) == ["socket"] * 2


async def test_of_several_hosts_the_next_is_tried_where_one_does_not_answer(secured: Secured) -> None:
    url = secured.url("connect_timeout=20", hosts=f"127.0.0.1:{free_port()},127.0.0.1:{secured.cluster.port}")
    port = f"SELECT {secured.cluster.port}::text WHERE inet_server_port() = {secured.cluster.port}"
    assert await both(url, port) == [str(secured.cluster.port)] * 2


@pytest.mark.parametrize(("wanted", "is_available"), [("primary", True), ("prefer-standby", True), ("standby", False)])
async def test_only_a_host_of_the_wanted_kind_is_used(postgres_url: str, wanted: str, *, is_available: bool) -> None:
    attempt = both(f"{postgres_url}?target_session_attrs={wanted}", "SELECT 'x'")
    if is_available:
        assert await attempt == ["x", "x"]
        return
    with pytest.raises(DatabaseUnavailable):
        await attempt


@pytest.mark.parametrize(
    ("query", "setting", "value"),
    [
        ("", "application_name", "rivya-receiver"),
        ("application_name=shop", "application_name", "shop"),
        ("options=-csearch_path%3Dpg_temp", "search_path", "pg_temp"),
        ("options=-c%20statement_timeout%3D7s%20-c%20jit=on", "statement_timeout", "7s"),
        ("options=--lock-timeout=7s", "lock_timeout", "7s"),
        ("options=-c+statement_timeout%3D7s", "lock_timeout", "5s"),
        ("", "TimeZone", "UTC"),
        ("", "jit", "off"),
        ("", "max_parallel_workers_per_gather", "0"),
    ],
)
async def test_settings_of_the_session_are_those_of_the_url_and_else_ours(
    postgres_url: str, query: str, setting: str, value: str
) -> None:
    assert await both(f"{postgres_url}?{query}", f"SELECT current_setting('{setting}')") == [value] * 2


async def test_pgbouncer_in_session_mode_with_its_default_settings_lets_us_in_and_our_settings_hold(
    empty_postgres_url: str, tmp_path: Path
) -> None:
    with pgbouncer(empty_postgres_url, tmp_path) as url:
        await migrate(url)
        for setting, value in (("statement_timeout", "30s"), ("lock_timeout", "5s"), ("TimeZone", "UTC")):
            assert await both(url, f"SELECT current_setting('{setting}')") == [value] * 2
        plans = await both(url, "SELECT current_setting('plan_cache_mode')")
        assert plans == ["force_custom_plan", "force_generic_plan"]


@pytest.mark.parametrize("by", ["url", "setting"])
async def test_behind_pgbouncer_in_transaction_mode_each_transaction_has_our_settings(
    empty_postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    with pgbouncer(empty_postgres_url, tmp_path, mode="transaction") as pooler:
        monkeypatch.setenv("RECEIVER_DB_POOLER", "transaction" if by == "setting" else "none")
        monkeypatch.setenv("DATABASE_URL", f"{pooler}?pgbouncer=true" if by == "url" else pooler)
        url = load_database().database_url
        await migrate(url)
        for setting, value in (("statement_timeout", "30s"), ("lock_timeout", "5s"), ("TimeZone", "UTC")):
            assert await both(url, f"SELECT current_setting('{setting}')") == [value] * 2
        show = text("SELECT pg_backend_pid(), current_setting('statement_timeout')")
        names = text("SELECT count(*) FROM pg_prepared_statements")
        async with opened(url) as database, database.read_for_caller() as one, database.read_for_caller() as other:
            (first, limit), (second, _) = [(await each.execute(show)).one() for each in (one, other)]
            assert (first != second, limit) == (True, "3s")
            assert [(await each.execute(names)).scalar_one() for each in (one, other)] == [0, 0]


def test_alembic_on_the_command_line_takes_the_same_url_and_refuses_the_same(empty_postgres_url: str) -> None:
    def alembic(query: str) -> subprocess.CompletedProcess[str]:
        url = f"{empty_postgres_url.replace('+asyncpg', '')}?{query}\n"
        command = [sys.executable, "-m", "alembic", "upgrade", "head"]
        environment = {"DATABASE_URL": url, "PATH": os.defpath}
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=120, check=False, cwd=ROOT
        )

    assert alembic("sslmode=prefer&application_name=by-hand").returncode == 0
    refused = alembic("sslmode=perhaps")
    assert refused.returncode != 0
    assert "DATABASE_URL: has sslmode" in refused.stderr + refused.stdout
    assert "Traceback" not in refused.stderr
