"""The machine: who runs on which core, and what it is, for the record."""

import os
import platform
import sqlite3
import subprocess
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

from tests.support.process_tree import children_of


def cores() -> tuple[int, int]:
    """The core of the server, and the core of the generator and PostgreSQL; the same one where there is only one."""
    available = sorted(os.sched_getaffinity(0))
    return available[0], available[min(1, len(available) - 1)]


def pin(pid: int, *cores: int) -> None:
    """Keep a process, and all its threads, on these cores; what it starts later stays there too."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), cores)


def description(postgres_version: str) -> list[str]:
    """One line for each thing that may explain a figure."""
    processors = Path("/proc/cpuinfo").read_text().splitlines()
    model = [line.partition(":")[2].strip() for line in processors if line.startswith("model name")]
    memory = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    packages = ", ".join(f"{name} {version(name)}" for name in ("uvicorn", "uvloop", "httptools", "fastapi", "asyncpg"))
    return [
        f"{os.cpu_count()} cores, {model[0] if model else platform.machine()}",
        f"{int(memory.split()[1]) // 1024} MiB of memory, Linux {platform.release()}",
        f"Python {platform.python_version()}, {packages}",
        f"PostgreSQL {postgres_version}, SQLite {sqlite3.sqlite_version}",
        f"commit {_commit()}",
    ]


def resident_bytes(pid: int) -> int:
    """Resident memory of a process; 0 once it is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def peak_bytes(pid: int) -> int:
    """The most resident memory that a process has had."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used; 0 once it is gone."""
    return sum(_ticks(pid)[:2]) / os.sysconf("SC_CLK_TCK")


def family_cpu_seconds(pid: int) -> float:
    """The same of a process, its children, and those of them that have ended."""
    return (sum(_ticks(pid)) + sum(sum(_ticks(child)[:2]) for child in children_of(pid))) / os.sysconf("SC_CLK_TCK")


def pin_family(pid: int, *cores: int) -> None:
    """Keep a process and its children, also those to come, on these cores."""
    for member in (pid, *children_of(pid)):
        with suppress(FileNotFoundError, ProcessLookupError):  # a session that has just ended
            pin(member, *cores)


def _ticks(pid: int) -> tuple[int, ...]:
    """In the process, in the kernel for it; and both of its children that have ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return (0, 0, 0, 0)
    return tuple(int(field) for field in fields[11:15])


def _commit() -> str:
    result = subprocess.run(["git", "rev-parse", "--short", "HEAD"], check=False, capture_output=True, text=True)
    return result.stdout.strip() or "unknown"


def seconds_kept_waiting(pid: int) -> float:
    """How long a process's first thread was ready to run and had no core."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
