"""Every branch of what decides is taken by the unit tests: what does no I/O has no excuse for an untested line."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

from tests.support.deployment import ROOT

CONTRACT = "What decides does no I/O"


def pure_modules() -> list[str]:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    [modules] = [contract["source_modules"] for contract in contracts if contract["name"] == CONTRACT]
    return list(modules)


def covered_by_unit_tests(directory: Path) -> dict[str, Any]:
    """Run tests/unit with branches counted; what was counted, by file. Raises AssertionError where a test fails."""
    report = directory / "coverage.json"
    counting = ["--cov=app", "--cov-branch", f"--cov-report=json:{report}"]
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "tests/unit", "-q", "-p", "no:cacheprovider", *counting],
        cwd=ROOT,
        env={"COVERAGE_FILE": str(directory / "coverage"), "PYTHONDONTWRITEBYTECODE": "1"},
        check=False,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    files: dict[str, Any] = json.loads(report.read_text())["files"]
    return files


def test_the_unit_tests_take_every_branch_of_every_pure_module(tmp_path: Path) -> None:
    counted = covered_by_unit_tests(tmp_path)
    left: dict[str, Any] = {}
    for module in pure_modules():
        file = counted[f"{module.replace('.', '/')}.py"]
        if file["missing_lines"] or file["missing_branches"]:
            left[module] = {"lines": file["missing_lines"], "branches": file["missing_branches"]}
    assert left == {}
