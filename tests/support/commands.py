"""The command, run to its end or until it has said something, with an environment of its own."""

import asyncio
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.fork_client import ForkedCommand
from tests.support.receiver_process import ReceiverProcess

SECONDS = 60


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
    errors: str


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


def wait_for(process: ReceiverProcess, text: str) -> str:
    """What the process wrote, as soon as it has written `text`. Blocking; raises AssertionError if it never does."""
    for _ in range(SECONDS * 20):
        ended = process.exit_status(within=0.05)
        if text in (written := process.log()):
            return written
        assert ended is None, written
    raise AssertionError(f"{text!r} was not written:\n{process.log()}")
