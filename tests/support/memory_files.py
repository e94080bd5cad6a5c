"""Where tests write their files: in memory where it has the room, for most of the time of a database test is files."""

import os
import shutil
from pathlib import Path

MEMORY = Path("/dev/shm")  # noqa: S108 - directories in it are made by tempfile
NEEDED_BYTES = 4 << 30


def temporary_root() -> str | None:
    """The directory for temporary ones; None leaves the choice to tempfile, as TMPDIR does."""
    if "TMPDIR" in os.environ or not os.access(MEMORY, os.W_OK):
        return None
    return str(MEMORY) if shutil.disk_usage(MEMORY).free >= NEEDED_BYTES else None
