"""The code that upgrades begin with, as a command: out of this repository's history, with the packages of today."""

import io
import subprocess
import sys
import tarfile
from pathlib import Path

from tests.support.deployment import ROOT

BASELINE = "migrations/versions/0001_tables.py"
"""The last commit that changed this file is upgraded from: databases of before it are not migrated."""


def previous_command(directory: Path) -> Path:
    """The `rivya-receiver` of the baseline, unpacked into `directory`. Fails where the history is too short."""
    shallow = _git("rev-parse", "--is-shallow-repository").decode().strip()
    assert shallow == "false", "this clone has a part of the history only: run `git fetch --unshallow`"
    commit = _git("log", "-1", "--format=%H", "--", BASELINE).decode().strip()
    assert commit, f"no commit in the history has {BASELINE}: is it not committed yet?"
    code = directory / "previous"
    with tarfile.open(fileobj=io.BytesIO(_git("archive", "--format=tar", commit, "app", "migrations"))) as archive:
        archive.extractall(code, filter="data")
    command = directory / "previous-rivya-receiver"
    lines = [f"#!{sys.executable}", "import sys", f"sys.path.insert(0, {str(code)!r})"]
    lines += ["import app", f"assert app.__file__.startswith({str(code)!r})", "from app.cli import main", "main()"]
    command.write_text("\n".join(lines) + "\n")
    command.chmod(0o755)
    return command


def _git(*arguments: str) -> bytes:
    ran = subprocess.run(["git", *arguments], cwd=ROOT, check=False, capture_output=True)
    assert ran.returncode == 0, f"git {arguments[0]} failed: {ran.stderr.decode()}"
    return ran.stdout
