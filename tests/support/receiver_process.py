"""The real command in a real process, on a free port: started, killed, stopped, and never left behind."""

import asyncio
import http.client
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from tests.support.fork_client import ForkedCommand
from tests.support.parent_watch import ParentWatch
from tests.support.ports import free_port

COMMAND = Path(sys.executable).with_name("rivya-receiver")
START_SECONDS = 30
STOP_SECONDS = 20


class ProcessEndedError(AssertionError):
    """The process ended, or never answered, while it should have been serving."""


class ReceiverProcess:
    """One `rivya-receiver …` with an environment of its own, writing to files in `directory`.

    The environment is `settings` plus PATH: nothing of this shell's. Blocking; in an async test prefer `serving`.
    It is forked from a process that has imported everything, unless `program` names a file to execute.
    """

    def __init__(
        self,
        settings: Mapping[str, str],
        directory: Path,
        *,
        command: str = "serve",
        port: int = 0,
        program: Path | None = None,
    ) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._command = command
        self._program = program
        self._directory = directory
        self._environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "RECEIVER_HOST": "127.0.0.1",
            "RECEIVER_PORT": str(self.port),
            **settings,
        }
        self._process: subprocess.Popen[bytes] | ForkedCommand | None = None
        self._parent_watch: ParentWatch | None = None

    @property
    def pid(self) -> int:
        """The process id. Raises ProcessEndedError when it is not running."""
        if self._process is None:
            raise ProcessEndedError("the process was not started")
        return self._process.pid

    @property
    def _output(self) -> Path:
        return self._directory / f"receiver-{self.port}.out"

    @property
    def _errors(self) -> Path:
        return self._directory / f"receiver-{self.port}.err"

    def spawn(self) -> None:
        """Start the process and return at once."""
        words = self._command.split()
        if self._program is None:
            self._process = ForkedCommand(
                words, self._environment, self._directory, output=self._output, errors=self._errors
            )
            return
        with self._output.open("ab") as output, self._errors.open("ab") as errors:
            self._process = subprocess.Popen(
                [str(self._program), *words],
                env=self._environment,
                cwd=self._directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                start_new_session=True,
            )
        self._parent_watch = ParentWatch('kill -KILL "$1"', str(self._process.pid))

    def start(self) -> None:
        """Start the process and return when `/livez` answers 200. Raises ProcessEndedError with what it wrote."""
        self.spawn()
        for _ in range(START_SECONDS * 20):
            if self.exit_status(within=0.05) is not None:
                break
            if self._is_live():
                return
        self.kill()
        raise ProcessEndedError(f"rivya-receiver {self._command} does not serve:\n{self.log()}")

    def exit_status(self, *, within: float = STOP_SECONDS) -> int | None:
        """The exit status when the process ends within so many seconds, None while it runs."""
        if self._process is None:
            raise ProcessEndedError("the process was not started")
        try:
            status = self._process.wait(within)
        except subprocess.TimeoutExpired:
            return None
        self._let_go()
        return status

    def terminate(self) -> int:
        """Ask the process to stop (SIGTERM) and return its exit status. Raises ProcessEndedError if it stays."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
        status = self.exit_status()
        if status is None:
            self.kill()
            raise ProcessEndedError(f"SIGTERM was not obeyed within {STOP_SECONDS} s:\n{self.log()}")
        return status

    def kill(self) -> None:
        """End the process as a power cut would (SIGKILL). Does nothing to one that has ended."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        self._let_go()

    def log(self) -> str:
        """What the process wrote so far, standard output first."""
        written = [path.read_text(errors="replace") for path in (self._output, self._errors) if path.exists()]
        return "".join(written)

    def _let_go(self) -> None:
        if self._parent_watch is not None:
            self._parent_watch.release()
            self._parent_watch = None

    def _is_live(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
        try:
            connection.request("GET", "/livez")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


@asynccontextmanager
async def serving(
    settings: Mapping[str, str],
    directory: Path,
    *,
    command: str = "serve",
    port: int = 0,
    program: Path | None = None,
) -> AsyncIterator[ReceiverProcess]:
    """A `rivya-receiver serve` that is live, killed at the end of the block if it still runs."""
    process = ReceiverProcess(settings, directory, command=command, port=port, program=program)
    try:
        # In a thread: what the receiver calls while it starts may well be served by this very event loop.
        await asyncio.to_thread(process.start)
        yield process
    finally:
        process.kill()
