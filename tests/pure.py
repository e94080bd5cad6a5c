"""Run tests/unit, and fail unless they take every branch of the modules that pyproject.toml lists as doing no I/O."""

import sys
import tomllib

import coverage
import pytest

from tests.support.deployment import ROOT

CONTRACT = "What decides does no I/O"


def pure_files() -> list[str]:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    [modules] = [contract["source_modules"] for contract in contracts if contract["name"] == CONTRACT]
    return [str(ROOT / f"{module.replace('.', '/')}.py") for module in modules]


def main() -> int:
    """The exit status. Only these files are traced: all of app/ would take twice the time."""
    files = pure_files()
    counting = coverage.Coverage(
        data_file=None, config_file=str(ROOT / "pyproject.toml"), source=[], include=files, branch=True
    )
    counting.start()
    status = pytest.main(["-q", str(ROOT / "tests" / "unit")])
    counting.stop()
    if status:
        return int(status)
    untouched = set(files) - counting.get_data().measured_files()
    covered = counting.report()
    if untouched:
        print("no unit test imports:", *sorted(untouched))
    return int(bool(untouched) or covered < 100)


if __name__ == "__main__":
    sys.exit(main())
