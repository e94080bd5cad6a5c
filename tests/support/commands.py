"""The real command, run to its end or until it has said something, with an environment of its own."""

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.receiver_process import COMMAND, ReceiverProcess

SECONDS = 60


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it wrote."""

    status: int | None
    output: str
    errors: str


async def command(words: str, settings: Mapping[str, str], directory: Path) -> Ended:
    """Run `rivya-receiver …` to its end in `directory`; nothing of this shell's environment but PATH reaches it."""
    process = await asyncio.create_subprocess_exec(
        COMMAND,
        *words.split(),
        env={"PATH": os.environ.get("PATH", os.defpath), **settings},
        cwd=directory,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        output, errors = await asyncio.wait_for(process.communicate(), SECONDS)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return Ended(process.returncode, output.decode(), errors.decode())


def wait_for(process: ReceiverProcess, text: str) -> str:
    """What the process wrote, as soon as it has written `text`. Blocking; raises AssertionError if it never does."""
    for _ in range(SECONDS * 20):
        ended = process.exit_status(within=0.05)
        if text in (written := process.log()):
            return written
        assert ended is None, written
    raise AssertionError(f"{text!r} was not written:\n{process.log()}")
