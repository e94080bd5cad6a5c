"""A PgBouncer in session mode before PostgreSQL, with its default settings otherwise."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from sqlalchemy import make_url

from tests.support.ports import free_port
from tests.support.postgres_install import unprivileged_account

_START_SECONDS = 30


@asynccontextmanager
async def pgbouncer(url: str, directory: Path) -> AsyncIterator[str]:
    """The URL of that database through such a PgBouncer."""
    binary = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if binary is None:
        raise AssertionError("this test needs PgBouncer: install it (Debian: apt-get install pgbouncer)")
    target, port, configuration = make_url(url), free_port(), directory / "pgbouncer.ini"
    password = f" password='{target.password}'" if target.password else ""
    configuration.write_text(
        f"""[databases]
* = host={target.host} port={target.port} user={target.username}{password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = session
"""
    )
    # It refuses to run as root, and may then not look into our directory: it reads its configuration from an open file,
    # which it opens once more.
    configuration.chmod(0o644)
    written = directory / "pgbouncer.log"
    user = unprivileged_account().pw_uid if os.geteuid() == 0 else None
    with configuration.open() as given, written.open("wb") as log:
        process = subprocess.Popen([binary, "/dev/stdin"], stdin=given, stderr=log, user=user, cwd="/")  # noqa: ASYNC220
    try:
        if not await _is_listening(process, port):
            raise AssertionError(f"PgBouncer did not start on port {port}:\n{written.read_text(errors='replace')}")
        yield target.set(host="127.0.0.1", port=port).render_as_string(hide_password=False)
    finally:
        process.kill()
        process.wait()


async def _is_listening(process: "subprocess.Popen[bytes]", port: int) -> bool:
    for _ in range(_START_SECONDS * 20):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            try:
                process.wait(0.05)
            except subprocess.TimeoutExpired:
                continue
            return False
        writer.close()
        await writer.wait_closed()
        return True
    return False
