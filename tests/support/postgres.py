"""A private PostgreSQL cluster: made in a temporary directory, stopped, restarted and frozen at will, then removed."""

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Literal, Self

from tests.support.parent_watch import ParentWatch
from tests.support.ports import free_port
from tests.support.postgres_install import PostgresUnavailableError, find_binaries, unprivileged_account
from tests.support.process_tree import freeze, kill_parent, thaw

START_SECONDS = 60
STOP_SECONDS = 30
USER = "receiver"

StopMode = Literal["fast", "immediate", "kill"]

_SIGNALS = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",  # a socket path has to be short, a temporary directory's need not be
    "fsync": "on",  # as in production; it costs nothing where the files are in memory
    "max_wal_size": "256MB",  # the files may be in memory
    "max_connections": "200",
    "shared_buffers": "32MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
# The lock file can be older than a crash, and its number somebody else's by now: look where that process lives.
# A frozen server must be thawed to obey; nobody wants its directory afterwards.
_CLEAN_UP = """
pid=$(head -n 1 "$1/data/postmaster.pid")
[ "/proc/$pid/cwd" -ef "$1/data" ] && kill -QUIT "$pid" && kill -CONT "$pid"
rm -rf "$1"
"""


class PostgresCluster:
    """One server of our own on a loopback port, with trust authentication. Several can run side by side.

    >>> with PostgresCluster(max_connections="20") as cluster:
    ...     cluster.url("postgres")
    'postgresql+asyncpg://receiver@127.0.0.1:…/postgres'
    """

    strategy = "FILE_COPY"

    def __init__(self, **settings: str) -> None:
        self.port = free_port()
        self._binaries = find_binaries()
        self._settings = {**_SETTINGS, **settings}
        self._directory = Path(tempfile.mkdtemp(prefix="receiver-postgres-"))
        self._parent_watch = ParentWatch(_CLEAN_UP, str(self._directory))
        self._process: subprocess.Popen[bytes] | None = None
        self._frozen: list[int] = []
        self._initialise()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def url(self, database: str) -> str:
        """The SQLAlchemy URL of one database of this cluster."""
        return f"postgresql+asyncpg://{USER}@127.0.0.1:{self.port}/{database}"

    @property
    def pid(self) -> int:
        """Of the server's first process, the sessions' parent. Raises PostgresUnavailableError where it is stopped."""
        if self._process is None:
            raise PostgresUnavailableError("a server that is stopped has no process")
        return self._process.pid

    def start(self) -> None:
        """Start the server and return when it takes connections.

        Raises PostgresUnavailableError, with what the server wrote, when it does not.
        """
        settings = {**self._settings, "port": str(self.port)}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        command = [str(self._binaries / "postgres"), "-D", str(self.data), *options]
        with self._log_file.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, **self._as_unprivileged())
        for _ in range(START_SECONDS * 20):
            if self._ends_within(0.05):
                break
            if self._takes_connections():
                return
        raise PostgresUnavailableError(f"PostgreSQL did not start on port {self.port}:\n{self.log()}")

    def stop(self, mode: StopMode = "fast") -> None:
        """Stop the server and wait for its end. Does nothing when it is stopped already.

        `fast` says goodbye to every session, `immediate` does not, `kill` is SIGKILL: after these two the server has to
        recover when it starts. Raises subprocess.TimeoutExpired or TimeoutError after 30 seconds.
        """
        if self._process is None:
            return
        self.resume()
        if mode == "kill":
            # Its sessions hold the shared memory until they notice, and a new server would refuse to start.
            kill_parent(self._process.pid, seconds=STOP_SECONDS)
        else:
            self._process.send_signal(_SIGNALS[mode])
        self._process.wait(STOP_SECONDS)
        self._process = None

    def restart(self, mode: StopMode = "fast") -> None:
        """Stop, then start again on the same port with the same data."""
        self.stop(mode)
        self.start()

    def pause(self) -> None:
        """Freeze the server and every session: connections stay open, the port accepts, and nothing answers."""
        if self._process is None:
            raise PostgresUnavailableError("a server that is stopped cannot be frozen")
        self._frozen = freeze(self._process.pid)

    def resume(self) -> None:
        """Let a frozen server go on where it was. Does nothing to a running one."""
        thaw(self._frozen)
        self._frozen = []

    def close(self) -> None:
        """Stop the server for good and remove its directory."""
        try:
            self.stop("immediate")
        except subprocess.TimeoutExpired:
            self.stop("kill")
        self._parent_watch.release()
        shutil.rmtree(self._directory, ignore_errors=True)

    def log(self) -> str:
        """What the server wrote since the cluster was made."""
        return self._log_file.read_text(errors="replace") if self._log_file.exists() else ""

    @property
    def data(self) -> Path:
        """The directory of the cluster."""
        return self._directory / "data"

    @property
    def _log_file(self) -> Path:
        return self._directory / "server.log"

    def _initialise(self) -> None:
        if os.geteuid() == 0:
            account = unprivileged_account()
            os.chown(self._directory, account.pw_uid, account.pw_gid)
        try:
            self._make_data()
        except PostgresUnavailableError:
            self.close()
            raise

    def _make_data(self) -> None:
        options = [f"--username={USER}", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
        self._run("initdb", *options)

    def _run(self, program: str, *options: str) -> None:
        """Run a program of PostgreSQL's on our data. Raises PostgresUnavailableError with what it wrote."""
        command = [str(self._binaries / program), *options, "-D", str(self.data)]
        done = subprocess.run(command, check=False, capture_output=True, text=True, **self._as_unprivileged())
        if done.returncode != 0:
            raise PostgresUnavailableError(f"{program} failed:\n{done.stdout}{done.stderr}")

    def _as_unprivileged(self) -> dict[str, Any]:
        # A session of its own: Ctrl-C in the terminal is for the tests, which then stop the server in their own order.
        environment = {"LC_ALL": "C", "PATH": os.defpath}
        how: dict[str, Any] = {"cwd": self._directory, "env": environment, "start_new_session": True}
        if os.geteuid() == 0:
            account = unprivileged_account()
            how |= {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        return how

    def _ends_within(self, seconds: float) -> bool:
        if self._process is None:
            return True
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        self._process = None
        return True

    def _takes_connections(self) -> bool:
        # The postmaster writes its state as the last line of its lock file; pg_ctl looks there too. The first line says
        # whose it is: a killed server leaves its own behind.
        try:
            lines = (self.data / "postmaster.pid").read_text().split()
        except FileNotFoundError:
            return False
        return bool(lines) and (lines[0], lines[-1]) == (str(self.pid), "ready")


class PostgresStandby(PostgresCluster):
    """A copy of a cluster that runs, which follows it from its start on, until it is promoted."""

    def __init__(self, primary: PostgresCluster, **settings: str) -> None:
        self._primary_port = primary.port
        super().__init__(**settings)

    def promote(self) -> None:
        """Take writes; returns when that is so."""
        self._run("pg_ctl", "promote", "--wait")

    def _make_data(self) -> None:
        source = ("--host=127.0.0.1", f"--port={self._primary_port}", f"--username={USER}")
        self._run("pg_basebackup", *source, "--checkpoint=fast", "--write-recovery-conf", "--no-sync")
