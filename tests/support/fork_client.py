"""Commands by forking: one process for all tests has imported everything, and forks whoever forks the commands."""

import asyncio
import atexit
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]


class ForkServer:
    """Forks receivers, and tells when they end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._pids: asyncio.Queue[int] = asyncio.Queue()
        self._ended: dict[int, asyncio.Future[int]] = {}
        self._lock = asyncio.Lock()
        self._reading = asyncio.create_task(self._read())

    async def start(self, settings: Mapping[str, str], *, log: Path, script: Path | None) -> int:
        async with self._lock:
            self._writer.write(_order(["serve"], settings, log.parent, output=log, errors=log, script=script))
            return await self._pids.get()

    def ended(self, pid: int) -> asyncio.Future[int]:
        """Resolved with the exit status; negative for a signal."""
        return self._ended[pid]

    def send_signal(self, pid: int, number: signal.Signals) -> None:
        """Does nothing to one that has ended, whether or not that has been read here."""
        if not self._ended[pid].done():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    async def _read(self) -> None:
        async for line in self._reader:
            message = json.loads(line)
            if "pid" in message:
                self._ended[message["pid"]] = asyncio.get_running_loop().create_future()
                self._pids.put_nowait(message["pid"])
            else:
                self._ended[message["ended"]].set_result(message["status"])

    async def close(self) -> None:
        """Return when it has ended, and with it all that it started."""
        self._writer.write_eof()
        await self._reading
        self._writer.close()
        await self._writer.wait_closed()


@asynccontextmanager
async def fork_server() -> AsyncIterator[ForkServer]:
    forking = ForkServer(*await asyncio.open_unix_connection(sock=_new_connection()))
    try:
        yield forking
    finally:
        await forking.close()


class ForkedCommand:
    """One `rivya-receiver …`, for whoever waits for it without an event loop; ends with this process at the latest.

    Its environment is `settings` plus PATH: nothing of this shell's.
    """

    def __init__(
        self, arguments: Sequence[str], settings: Mapping[str, str], directory: Path, *, output: Path, errors: Path
    ) -> None:
        self._connection = _new_connection()
        # Unbuffered: a reader that held a second report already would let `wait` wait for bytes that have come.
        self._reports = self._connection.makefile("rb", buffering=0)
        self._connection.sendall(_order(arguments, settings, directory, output=output, errors=errors, script=None))
        self.pid: int = json.loads(self._reports.readline())["pid"]
        self._status: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        """The exit status, negative for a signal. Raises subprocess.TimeoutExpired after `timeout` seconds."""
        if self._status is None:
            if not select.select([self._connection], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("rivya-receiver", timeout or 0)
            self._status = int(json.loads(self._reports.readline())["status"])
            self._reports.close()
            self._connection.close()
        return self._status

    def send_signal(self, number: int) -> None:
        """Does nothing to one that is known to have ended."""
        if self._status is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


def _order(
    arguments: Sequence[str],
    settings: Mapping[str, str],
    directory: Path,
    *,
    output: Path,
    errors: Path,
    script: Path | None,
) -> bytes:
    order = {
        "arguments": list(arguments),
        "environment": {"PATH": os.environ.get("PATH", os.defpath), **settings},
        "directory": str(directory),
        "output": str(output),
        "errors": str(errors),
        "script": script and str(script),
    }
    return json.dumps(order).encode() + b"\n"


def _new_connection() -> socket.socket:
    """To a fork server of its own."""
    ours, theirs = socket.socketpair()
    with theirs:
        socket.send_fds(_parent(), [b"1"], [theirs.fileno()])
    return ours


_PARENTS: list[socket.socket] = []
_LOCK = threading.Lock()


def _parent() -> socket.socket:
    """Where to send a socket to have a fork server at its other end; one process for all tests, gone with this one."""
    with _LOCK:
        if not _PARENTS:
            _PARENTS.append(_start_parent())
        return _PARENTS[0]


def _start_parent() -> socket.socket:
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen([sys.executable, "-m", "tests.support.fork_server"], cwd=ROOT, stdin=theirs.fileno())

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours
