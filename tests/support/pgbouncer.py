"""A PgBouncer before PostgreSQL, with its default settings but for the mode."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from sqlalchemy import make_url

from tests.support.ports import free_port
from tests.support.postgres_install import unprivileged_account

_START_SECONDS = 30


@contextmanager
def pgbouncer(url: str, directory: Path, *, mode: Literal["session", "transaction"] = "session") -> Iterator[str]:
    """The URL of that database through such a PgBouncer. Blocking.

    In transaction mode the connections to the server take turns, so that hardly any two transactions share a session.
    """
    binary = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if binary is None:
        raise AssertionError("this test needs PgBouncer: install it (Debian: apt-get install pgbouncer)")
    target, port, configuration = make_url(url), free_port(), directory / "pgbouncer.ini"
    password = f" password='{target.password}'" if target.password else ""
    turns = "server_round_robin = 1\nmax_client_conn = 1000\n" if mode == "transaction" else ""
    configuration.write_text(
        f"""[databases]
* = host={target.host} port={target.port} user={target.username}{password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
{turns}"""
    )
    # It refuses to run as root, and may then not look into our directory: it reads its configuration from an open file,
    # which it opens once more.
    configuration.chmod(0o644)
    written = directory / "pgbouncer.log"
    user = unprivileged_account().pw_uid if os.geteuid() == 0 else None
    with configuration.open() as given, written.open("wb") as log:
        process = subprocess.Popen([binary, "/dev/stdin"], stdin=given, stderr=log, user=user, cwd="/")
    try:
        if not _is_listening(process, written):
            raise AssertionError(f"PgBouncer did not start on port {port}:\n{written.read_text(errors='replace')}")
        yield target.set(host="127.0.0.1", port=port).render_as_string(hide_password=False)
    finally:
        process.kill()
        process.wait()


def _is_listening(process: "subprocess.Popen[bytes]", log: Path) -> bool:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if "process up" in log.read_text(errors="replace"):
            return True
        try:
            process.wait(0.05)
        except subprocess.TimeoutExpired:
            continue
        break
    return False
