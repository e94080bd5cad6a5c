"""Help costs little more than importing typer, every command has it, and the command knows its version."""

import math
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any, get_args

import pytest
import typer.main
from typer.testing import CliRunner

from app.cli import OutcomeName, cli
from app.ledger.models import Outcome
from tests.support.receiver_process import COMMAND

FEWEST_PAIRS, MOST_PAIRS = 5, 40
HEAVY = {"fastapi", "httpx", "orjson", "pydantic", "rich", "sqlalchemy", "structlog", "uvicorn", "uvloop"}
LOADED_BY_HELP = """
import sys
from app.cli import cli
cli(["--help"], standalone_mode=False)
print(*{name.partition(".")[0] for name in sys.modules}, file=sys.stderr)
"""


def processor_seconds(*words: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(words, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_help_takes_at_most_half_more_processor_time_than_importing_typer() -> None:
    commands = ((str(COMMAND), "--help"), (sys.executable, "-c", "import typer"))
    for words in commands:  # the first run may compile modules
        processor_seconds(*words)
    # The least is what it takes: a machine at work adds to either, never takes away; then more pairs find it.
    ratio, pairs = math.inf, list[list[float]]()
    while len(pairs) < FEWEST_PAIRS or (ratio > 1.5 and len(pairs) < MOST_PAIRS):
        pairs.append([processor_seconds(*words) for words in commands])
        ours, typers = map(min, zip(*pairs, strict=True))
        ratio = ours / typers
    assert ratio <= 1.5


def test_help_imports_none_of_the_large_libraries() -> None:
    ended = subprocess.run([sys.executable, "-c", LOADED_BY_HELP], check=True, capture_output=True, text=True)
    assert HEAVY & set(ended.stderr.split()) == set()


def paths(command: Any, *words: str) -> Iterator[tuple[str, ...]]:
    yield words
    for name, child in getattr(command, "commands", {}).items():
        yield from paths(child, *words, name)


@pytest.mark.parametrize("words", list(paths(typer.main.get_command(cli))), ids=" ".join)
def test_every_command_explains_itself(words: tuple[str, ...]) -> None:
    short, long = (CliRunner().invoke(cli, [*words, option]) for option in ("-h", "--help"))
    assert (short.exit_code, short.output) == (0, long.output)
    assert short.output.startswith("Usage: ")


@pytest.mark.parametrize("words", [["version"], ["--version"]])
def test_the_command_knows_its_version(words: list[str]) -> None:
    ended = CliRunner().invoke(cli, words)
    assert (ended.exit_code, ended.output) == (0, f"rivya-receiver {version('rivya-receiver')}\n")


def test_a_shell_completes_the_names_of_commands() -> None:
    settings = {"_RIVYA_RECEIVER_COMPLETE": "complete_bash", "COMP_WORDS": "rivya-receiver gen", "COMP_CWORD": "1"}
    ended = subprocess.run([COMMAND], env={**os.environ, **settings}, check=False, capture_output=True, text=True)
    assert ended.stdout.split() == ["generations"]


def test_every_command_that_prints_a_result_takes_json() -> None:
    without = {words for words in paths(typer.main.get_command(cli)) if "--json" not in options_of(words)}
    groups = {(name,) for name in ("keys", "tokens", "deliveries", "generations", "files", "webhooks")} | {()}
    assert without - groups == {("serve",), ("run",), ("sandbox",)}


def options_of(words: tuple[str, ...]) -> set[str]:
    command: Any = typer.main.get_command(cli)
    for word in words:
        command = command.commands[word]
    return {option for parameter in command.params for option in parameter.opts}


def test_deliveries_are_chosen_by_the_outcomes_that_there_are() -> None:
    assert get_args(OutcomeName) == tuple(Outcome)
