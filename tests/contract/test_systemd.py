"""The systemd unit starts what the command line understands, and gives it the time to stop."""

import configparser
import shlex

import pytest
import typer.main

from app.cli import cli
from app.cli.server import STOP_SECONDS
from tests.support.deployment import ROOT


@pytest.fixture(scope="module")
def service() -> configparser.SectionProxy:
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(ROOT / "deploy" / "systemd" / "rivya-receiver.service")
    return unit["Service"]


def test_the_unit_runs_a_command_that_exists(service: configparser.SectionProxy) -> None:
    program, word, *arguments = shlex.split(service["ExecStart"])
    assert program.endswith("/.venv/bin/rivya-receiver")
    typer.main.get_command(cli).commands[word].make_context(word, arguments)  # type: ignore[attr-defined]


def test_the_unit_restarts_after_a_crash_but_not_after_wrong_settings(service: configparser.SectionProxy) -> None:
    assert (service["Restart"], service["RestartPreventExitStatus"]) == ("on-failure", "2")
    assert int(service["TimeoutStopSec"]) > STOP_SECONDS + 10
    assert service["WorkingDirectory"] == f"/var/lib/{service['StateDirectory']}"
