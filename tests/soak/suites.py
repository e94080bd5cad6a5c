"""Runs test files in a pytest of their own, for as long as their share of the time; they tell what they came to."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.run_counts import COUNTS_PATH, SECONDS, RunCounts, read

_SECONDS_AROUND = 240.0
"""That starting, and ending what has begun, may take beside its time, before it is ended and counts as not run."""
_ENOUGH_FOR_ANOTHER_ROUND = 0.4
"""Share of the time that must be left to begin them all again."""
_NO_FAILURES = (0, 5)
"""Exit statuses of pytest: all passed, nothing was left to run."""


@dataclass(frozen=True)
class Suite:
    """Which tests; `environment` is what makes them long."""

    paths: Sequence[str]
    environment: dict[str, str]
    processes: int = 2


@dataclass(frozen=True)
class SuiteEnded:
    """What they came to."""

    counts: RunCounts
    rounds: int
    is_clean: bool
    is_complete: bool
    """Ended by itself, and something was tried."""


def run(suite: Suite, directory: Path, *, seconds: float) -> SuiteEnded:
    """Again and again, once at least, until so many seconds are over."""
    directory.mkdir()
    path = directory / "counts"
    rounds, status = asyncio.run(_run(suite, path, seconds=seconds))
    is_complete = status != -signal.SIGKILL and path.exists()
    return SuiteEnded(read(path), rounds, status in _NO_FAILURES, is_complete)


async def _run(suite: Suite, counts_path: Path, *, seconds: float) -> tuple[int, int]:
    until, rounds, status = time.monotonic() + seconds, 0, 0
    while rounds == 0 or (status in _NO_FAILURES and until - time.monotonic() > seconds * _ENOUGH_FOR_ANOTHER_ROUND):
        status = await _pytest(suite, counts_path, seconds=max(until - time.monotonic(), 0))
        rounds += 1
    return rounds, status


async def _pytest(suite: Suite, counts_path: Path, *, seconds: float) -> int:
    words = ["-q", "-p", "no:cacheprovider", "--numprocesses", str(suite.processes), "--dist", "worksteal"]
    words += ["-o", "faulthandler_timeout=0"]  # the time is ours to bound
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "pytest",
        *words,
        *suite.paths,
        env={**os.environ, **suite.environment, COUNTS_PATH: str(counts_path), SECONDS: str(seconds)},
        start_new_session=True,
    )
    try:
        return await asyncio.wait_for(process.wait(), seconds + _SECONDS_AROUND)
    except TimeoutError:
        return -signal.SIGKILL
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
