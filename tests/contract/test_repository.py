"""The repository keeps its own rules: nothing of one machine in it, and what every file must have."""

import ast
import re
import subprocess
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from tests.support.deployment import ROOT

SOURCES = sorted((ROOT / "app").rglob("*.py"))
REQUIREMENTS = sorted(ROOT.glob("requirements*.txt"))
# A folder of a person or of a build machine; a path inside a container (/data, /opt) is nobody's.
MACHINE_PATH = re.compile(r"(?<![\w.:/-])/(?:home|Users|work|workspace|builds)/\w")


def tracked_files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]


@pytest.mark.parametrize("path", REQUIREMENTS, ids=lambda path: path.name)
def test_a_lock_file_records_no_address(path: Path) -> None:
    assert re.findall(r"https?://\S+", path.read_text()) == []


@pytest.mark.parametrize("path", REQUIREMENTS, ids=lambda path: path.name)
def test_every_pin_has_a_hash(path: Path) -> None:
    pins = re.findall(r"^\S+==\S+(.*(?:\n +--hash.*)*)", path.read_text(), flags=re.MULTILINE)
    assert pins
    assert all("--hash=sha256:" in pin for pin in pins)


def test_no_file_knows_the_machine_it_was_written_on() -> None:
    machine_paths = {path.name: MACHINE_PATH.findall(path.read_text(errors="replace")) for path in tracked_files()}
    assert {name for name, paths in machine_paths.items() if paths} == set()


def test_the_console_script_leads_to_a_function() -> None:
    (script,) = entry_points(group="console_scripts", name="rivya-receiver")
    assert callable(script.load())


def test_every_module_begins_by_saying_what_it_is_for() -> None:
    sources = {path.relative_to(ROOT): path.read_text() for path in SOURCES}
    silent = {str(path) for path, source in sources.items() if source and not ast.get_docstring(ast.parse(source))}
    assert silent == set()


def test_no_test_waits_by_sleeping() -> None:
    tests = [path for path in tracked_files() if path.suffix == ".py" and "tests" in path.parts]
    sleepers = [path.name for path in tests if re.search(r"\bsleep\((?!0\))", path.read_text())]
    assert sleepers == []


@pytest.mark.parametrize("name", ["README.md", "CHANGELOG.md", "docs/decisions.md"])
def test_there_is_something_to_read(name: str) -> None:
    assert len((ROOT / name).read_text().split()) > 100


def test_continuous_integration_runs_what_a_developer_runs() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    commands = [line for line in script.read_text().splitlines() if line.startswith("make")]
    assert commands == ["make check", "make test", "make image-test"]
