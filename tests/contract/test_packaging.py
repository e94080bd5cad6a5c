"""What is shipped is what is tested: the wheel and the image."""

import hashlib
import re
import shutil
import subprocess
import sys
import zipfile
from typing import Any

import pytest

from app.core.settings import Settings
from tests.support.containers import version
from tests.support.deployment import ROOT, dockerfile, final_stage
from tests.support.receiver_process import COMMAND

KNOWN = {name.upper() for name in Settings.model_fields}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built from a copy: what is built must not depend on what an earlier build left lying about."""
    source, wheels = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheels")
    for folder in ("app", "migrations"):
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / file, source)
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--quiet"]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", wheels, source], check=True)
    return zipfile.ZipFile(next(wheels.glob("*.whl")))


def test_the_wheel_holds_every_module_and_every_migration(wheel: zipfile.ZipFile) -> None:
    folders = [ROOT / "app", ROOT / "migrations"]
    modules = {str(path.relative_to(ROOT)) for folder in folders for path in folder.rglob("*.py")}
    assert modules | {"app/api/quickstart.sh", "migrations/script.py.mako"} <= set(wheel.namelist())


def test_the_wheel_holds_every_template_and_file_of_the_console(wheel: zipfile.ZipFile) -> None:
    console = ROOT / "app" / "console"
    folders = (console / "templates", console / "static")
    files = {str(path.relative_to(ROOT)) for folder in folders for path in folder.rglob("*") if path.is_file()}
    assert "app/console/static/vendor/swagger-ui-dist/LICENSE" in files
    assert files <= set(wheel.namelist())


def test_what_was_taken_from_packages_is_what_its_hash_says() -> None:
    vendor = ROOT / "app" / "console" / "static" / "vendor"
    lines = [line.split() for line in (vendor / "SHA256SUMS").read_text().splitlines()]
    sums = {name: digest for digest, name in lines}
    files = {path for path in vendor.glob("*/*") if path.is_file()}
    assert {str(path.relative_to(vendor)) for path in files} == set(sums)
    assert {hashlib.sha256(path.read_bytes()).hexdigest() for path in files} == set(sums.values())
    assert {path.parent for path in files} == {path.parent for path in vendor.glob("*/LICENSE")}


def test_the_wheel_holds_nothing_else(wheel: zipfile.ZipFile) -> None:
    folders = {name.partition("/")[0] for name in wheel.namelist()}
    assert {folder for folder in folders if not folder.endswith(".dist-info")} == {"app", "migrations"}


def test_the_image_runs_the_command_that_the_tests_run() -> None:
    stage = final_stage()
    assert [*stage["ENTRYPOINT"].words, *stage["CMD"].words] == [COMMAND.name, "serve"]


def test_the_image_copies_only_what_exists_and_is_not_ignored() -> None:
    *_everything, ignored = (ROOT / ".dockerignore").read_text().partition("\n*\n")
    let_in = {line.removeprefix("!") for line in ignored.splitlines() if line.startswith("!")}
    copied = [step.rest.split()[:-1] for step in dockerfile() if step.word == "COPY" and "--from" not in step.rest]
    sources = {source for step in copied for source in step}
    assert sources == let_in
    assert all((ROOT / source).exists() for source in sources)


def test_the_image_installs_nothing_without_its_hash() -> None:
    steps = [
        step.strip()
        for instruction in dockerfile()
        if instruction.word == "RUN"
        for step in instruction.rest.split("&&")
    ]
    installs = [step for step in steps if "pip" in step.split()[0] and " install " in step]
    assert installs
    assert all("--require-hashes" in step or "--no-index" in step for step in installs)


def test_the_image_does_not_run_as_root() -> None:
    assert int(final_stage()["USER"].rest.partition(":")[0]) > 0


def test_the_image_has_the_version_of_the_package() -> None:
    arguments = [step.rest for step in dockerfile() if step.word == "ARG"]
    assert f"VERSION={version()}" in arguments


def test_the_image_exposes_the_port_it_listens_on() -> None:
    assert int(final_stage()["EXPOSE"].rest) == Settings.model_fields["receiver_port"].default


def test_the_image_sets_only_known_settings() -> None:
    names = set(re.findall(r"\b((?:RIVYA|RECEIVER|DATABASE)_[A-Z_]+)=", final_stage()["ENV"].rest))
    assert names
    assert names <= KNOWN


@pytest.mark.parametrize("requirements", ["requirements.txt", "requirements-build.txt"])
def test_what_is_shipped_is_pinned_as_it_was_tested(requirements: str) -> None:
    shipped, tested = _pins(requirements), _pins("requirements-dev.txt")
    assert shipped
    assert shipped.items() <= tested.items()


def _pins(requirements: str) -> dict[str, Any]:
    return dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", (ROOT / requirements).read_text(), flags=re.MULTILINE))
