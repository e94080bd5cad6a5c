"""Receivers by forking: one process for all tests has imported everything, and forks whoever forks the receivers."""

import asyncio
import atexit
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
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

    async def start(self, settings: dict[str, str], *, log: Path, script: Path | None) -> int:
        path = {"PATH": os.environ.get("PATH", os.defpath)}
        order = {"environment": {**path, **settings}, "log": str(log), "script": script and str(script)}
        async with self._lock:
            self._writer.write(json.dumps(order).encode() + b"\n")
            return await self._pids.get()

    def ended(self, pid: int) -> asyncio.Future[int]:
        """Resolved with the exit status; negative for a signal."""
        return self._ended[pid]

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
    ours, theirs = socket.socketpair()
    with theirs:
        socket.send_fds(_mother(), [b"1"], [theirs.fileno()])
    forking = ForkServer(*await asyncio.open_unix_connection(sock=ours))
    try:
        yield forking
    finally:
        await forking.close()


@cache
def _mother() -> socket.socket:
    """Where to send a socket to have a fork server at its other end; one process for all tests, gone with this one."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen([sys.executable, "-m", "tests.support.fork_server"], cwd=ROOT, stdin=theirs.fileno())

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours
