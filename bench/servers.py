"""Server processes under measurement: started with an environment of their own, pinned to a core, always stopped."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.events import SECRET
from bench.machine import cpu_seconds, pin
from tests.support.parent_watch import ParentWatch
from tests.support.ports import free_port
from tests.support.receivers import ENCRYPTION_KEY

TOKEN = "0123456789abcdef0123456789abcdef"  # noqa: S105 - known to nobody but this run
START_SECONDS = 120.0
_ROOT = Path(__file__).resolve().parent.parent
_RECEIVER = Path(sys.executable).with_name("rivya-receiver")


class NeverServed(Exception):
    """The server ended, or never answered; the text is what it wrote."""


@dataclass(frozen=True, slots=True)
class Server:
    """A process that answers on a port of this machine."""

    port: int
    pid: int
    seconds_to_live: float
    """From its start to its first answer on /livez, where it has one."""
    processor_seconds_to_live: float


@contextmanager
def ceiling(*, core: int) -> Iterator[Server]:
    """The bare application."""
    port = free_port()
    with _served([sys.executable, "-m", "bench.ceiling", str(port)], {}, port=port, core=core) as server:
        yield server


@contextmanager
def baseline(database_url: str, *, core: int) -> Iterator[Server]:
    """The plain way."""
    port = free_port()
    command = [sys.executable, "-m", "bench.baseline", str(port)]
    with _served(command, {"DATABASE_URL": database_url}, port=port, core=core) as server:
        yield server


@contextmanager
def rivya(*, core: int) -> Iterator[Server]:
    """A Rivya that answers polls after 50 ms."""
    port = free_port()
    with _served([sys.executable, "-m", "bench.rivya", str(port)], {}, port=port, core=core) as server:
        yield server


@contextmanager
def receiver(database_url: str, *, core: int, **changes: str) -> Iterator[Server]:
    """`rivya-receiver serve`, as deployed, with a secret given by hand."""
    port = free_port()
    environment = {
        "RIVYA_API_KEY": "rvya_sk_sandbox",
        "RIVYA_BASE_URL": "http://127.0.0.1:1",
        "RIVYA_SIGNING_SECRET": SECRET,
        "RECEIVER_API_TOKENS": f"bench:admin:{TOKEN}",
        "RECEIVER_PORT": str(port),
        "DATABASE_URL": database_url,
        **changes,
    }
    with _served([str(_RECEIVER), "serve"], environment, port=port, core=core) as server:
        _await_ready(server.port)
        yield server


@contextmanager
def sandbox(*, core: int) -> Iterator[Server]:
    """The sandbox Rivya, where the one that only answers polls won't do."""
    port = free_port()
    with _served([str(_RECEIVER), "sandbox", "--port", str(port)], {}, port=port, core=core) as server:
        yield server


@contextmanager
def registered(database_url: str, rivya: Server, *, core: int) -> Iterator[Server]:
    """`rivya-receiver serve` that registers its own endpoint with this Rivya, and prunes what is older than a day."""
    port = free_port()
    environment = registered_environment(database_url, rivya, port=port)
    with _served([str(_RECEIVER), "serve"], environment, port=port, core=core) as server:
        _await_ready(server.port)
        yield server


def registered_environment(database_url: str, rivya: Server, *, port: int) -> dict[str, str]:
    """Of a receiver at `port`, and of the commands that go with it."""
    return {
        "RIVYA_API_KEY": "rvya_sk_sandbox",
        "RIVYA_BASE_URL": f"http://127.0.0.1:{rivya.port}",
        "RECEIVER_PUBLIC_URL": f"http://127.0.0.1:{port}",
        "RECEIVER_ENCRYPTION_KEYS": ENCRYPTION_KEY,
        "RECEIVER_API_TOKENS": f"bench:admin:{TOKEN}",
        "RECEIVER_RETENTION_DAYS": "1",
        "RECEIVER_PORT": str(port),
        "DATABASE_URL": database_url,
    }


@contextmanager
def receivers(database_url: str, count: int, *, core: int) -> Iterator[list[Server]]:
    """Several of them on one database."""
    with ExitStack() as stack:
        yield [stack.enter_context(receiver(database_url, core=core)) for _ in range(count)]


@contextmanager
def _served(command: Sequence[str], environment: Mapping[str, str], *, port: int, core: int) -> Iterator[Server]:
    log = Path(os.environ.get("TMPDIR", "/tmp")) / f"bench-server-{port}.log"  # noqa: S108
    with log.open("wb") as output:
        started = time.perf_counter()
        process = subprocess.Popen(
            command,
            env={"PATH": os.environ.get("PATH", os.defpath), "PYTHONPATH": str(_ROOT), **environment},
            cwd=log.parent,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    parent_watch = ParentWatch('kill -KILL "$1"', str(process.pid))
    try:
        pin(process.pid, core)
        _await_answer(process, port, log)
        yield Server(port, process.pid, time.perf_counter() - started, cpu_seconds(process.pid))
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        parent_watch.release()
        log.unlink(missing_ok=True)


def _await_answer(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    until = time.perf_counter() + START_SECONDS
    while time.perf_counter() < until:
        if process.poll() is not None:
            break
        if ask(port, "/livez") is not None:
            return
        time.sleep(0.01)
    raise NeverServed(log.read_text(errors="replace")[-4000:])


def _await_ready(port: int) -> None:
    until = time.perf_counter() + START_SECONDS
    while time.perf_counter() < until:
        if b'"migrations","ok":true' in (ask(port, "/readyz") or b""):
            return
        time.sleep(0.05)
    raise NeverServed("the database was never migrated")


def ask(port: int, path: str, *, token: str | None = None) -> bytes | None:
    """One GET on a connection of its own; the whole answer, None where nobody listens yet."""
    authorization = f"Authorization: Bearer {token}\r\n" if token else ""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(
                f"GET {path} HTTP/1.1\r\nHost: bench\r\n{authorization}Connection: close\r\n\r\n".encode()
            )
            answer = b""
            while received := connection.recv(65536):
                answer += received
    except OSError:
        return None
    return answer or None
