"""The command, run to its end or until it has said something, with an environment of its own."""

import asyncio
import os
import signal
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.fork_client import ForkedCommand
from tests.support.receiver_process import ReceiverProcess

SECONDS = 60
PROGRAM_SECONDS = 300
"""A block of a document starts a dozen programs, each of which takes a second or two where nothing else runs."""


def program_path(program: str) -> str:
    """Where a program of the PATH is. Raises AssertionError if it is not installed."""
    for folder in os.environ["PATH"].split(os.pathsep):
        if os.access(Path(folder) / program, os.X_OK):
            return str(Path(folder) / program)
    raise AssertionError(f"{program} is needed, and not installed")


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it wrote."""

    status: int | None
    output: str
    stderr: str

    @property
    def errors(self) -> str:
        """Its standard error, without the lines that say what it waits for: they come when something takes long."""
        lines = self.stderr.splitlines(keepends=True)
        return "".join(line for line in lines if not line.startswith("waiting "))


async def command(words: str, settings: Mapping[str, str], directory: Path) -> Ended:
    """Run `rivya-receiver …` to its end in `directory`; nothing of this shell's environment but PATH reaches it.

    It is forked from a process that has imported everything.
    """
    return await asyncio.to_thread(_command, words, settings, directory)


def _command(words: str, settings: Mapping[str, str], directory: Path) -> Ended:
    with tempfile.TemporaryDirectory(prefix="command-") as name:
        output, errors = Path(name, "output"), Path(name, "errors")
        process = ForkedCommand(words.split(), settings, directory, output=output, errors=errors)
        try:
            status = process.wait(SECONDS)
        finally:
            process.kill()
            process.wait()
        return Ended(status, output.read_text(), errors.read_text())


async def program(*words: str, environment: Mapping[str, str], directory: Path) -> Ended:
    """Run a program of the PATH to its end in `directory`. It is killed, with what it has started, if it has none."""
    process = await asyncio.create_subprocess_exec(
        *words,
        cwd=directory,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        output, errors = await asyncio.wait_for(process.communicate(), PROGRAM_SECONDS)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        await process.communicate()
        raise
    return Ended(process.returncode, output.decode(), errors.decode())


def wait_for(process: ReceiverProcess, text: str) -> str:
    """What the process wrote, as soon as it has written `text`. Blocking; raises AssertionError if it never does."""
    for _ in range(SECONDS * 20):
        ended = process.exit_status(within=0.05)
        if text in (written := process.log()):
            return written
        assert ended is None, written
    raise AssertionError(f"{text!r} was not written:\n{process.log()}")
