"""The code of the previous release, as a command: out of this repository's history, with the packages of today."""

import io
import subprocess
import sys
import tarfile
from pathlib import Path

from tests.support.deployment import ROOT

PREVIOUS = "3be8e245e5f5ce844647dc24dda7e3ef9d60217b"
"""What is upgraded from: the tag of the last release, once there is one; until then a commit of main."""


def previous_command(directory: Path) -> Path:
    """The previous `rivya-receiver`, unpacked into `directory`."""
    packed = subprocess.run(
        ["git", "archive", "--format=tar", PREVIOUS, "app", "migrations"], cwd=ROOT, check=False, capture_output=True
    )
    assert packed.returncode == 0, f"the previous release, {PREVIOUS}, is not in the history: {packed.stderr.decode()}"
    code = directory / "previous"
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        archive.extractall(code, filter="data")
    command = directory / "previous-rivya-receiver"
    lines = [f"#!{sys.executable}", "import sys", f"sys.path.insert(0, {str(code)!r})"]
    lines += ["import app", f"assert app.__file__.startswith({str(code)!r})", "from app.cli import main", "main()"]
    command.write_text("\n".join(lines) + "\n")
    command.chmod(0o755)
    return command
