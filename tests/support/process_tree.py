"""A process and its children: frozen, thawed, or killed together."""

import contextlib
import os
import select
import signal
from pathlib import Path


def freeze(parent: int) -> list[int]:
    """Stop a process and its direct children; returns whom to `thaw`, in the order in which they were stopped."""
    os.kill(parent, signal.SIGSTOP)  # first of all, or it would start another child behind our back
    frozen = [parent]
    for child in children_of(parent):
        os.kill(child, signal.SIGSTOP)
        frozen.append(child)
    return frozen


def thaw(frozen: list[int]) -> None:
    """Let them go on where they were, the parent last."""
    for pid in reversed(frozen):
        os.kill(pid, signal.SIGCONT)


def kill_parent(parent: int, *, seconds: float) -> None:
    """Kill a process and wait until its children, left alone, have gone of their own accord.

    Raises TimeoutError when one of them is still there after `seconds`.
    """
    handles = []
    os.kill(parent, signal.SIGSTOP)  # or it could have another child that is not in the list
    for child in children_of(parent):
        with contextlib.suppress(ProcessLookupError):  # a session that ended since the list was made
            handles.append(os.pidfd_open(child))
    os.kill(parent, signal.SIGKILL)
    try:
        for handle in handles:
            if not select.select([handle], [], [], seconds)[0]:
                raise TimeoutError(f"a child of process {parent} outlives it by more than {seconds} s")
    finally:
        for handle in handles:
            os.close(handle)


def children_of(parent: int) -> list[int]:
    """The process ids of the direct children that live."""
    entries = [entry for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [int(entry.name) for entry in entries if _parent_of(entry) == parent]


def _parent_of(process: Path) -> int | None:
    try:
        stat = (process / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(stat.rpartition(")")[2].split()[1])
