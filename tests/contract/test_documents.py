"""The documents agree with the code: settings, routes, commands, metrics and links that they name exist."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main
from prometheus_client import REGISTRY

from app.cli import cli
from app.core.errors import ServiceError
from app.core.middleware import CALLERS
from app.core.migrations import VERSION_TABLE
from app.core.setting_sources import SECRETS
from app.core.settings import Settings, load
from app.core.urls import AllowList
from app.rivya.signature import Reason
from tests.support.asgi_service import document
from tests.support.deployment import ROOT, compose
from tests.support.documents import DOCUMENTS, commands, read

REQUIRED = {
    "rivya_api_key": "rvya_sk_of_nobody",
    "receiver_public_url": "https://receiver.example.com",
    "receiver_encryption_keys": "c2FuZGJveC1vbmx5LW5vdC1hLXNlY3JldC0wMDAwMDA=",
}
SETTING = re.compile(r"^\| `((?:RIVYA|RECEIVER|DATABASE)_[A-Z_]+)` \| (\S[^|]*) \| [^|]+ \| [^|]+ \|$", re.MULTILINE)


def documented_settings() -> dict[str, str]:
    return dict(SETTING.findall(read("docs/configuration.md")))


def test_every_setting_is_documented_and_no_other() -> None:
    assert set(documented_settings()) == {name.upper() for name in Settings.model_fields}


def test_the_documented_defaults_are_the_defaults() -> None:
    shown = {name.lower(): text.strip("`") for name, text in documented_settings().items() if text.startswith("`")}
    assert load(**REQUIRED, **shown) == load(**REQUIRED)
    assert set(shown) | set(REQUIRED) >= {
        name for name, field in Settings.model_fields.items() if field.default not in (None, (), AllowList())
    }


@pytest.mark.parametrize(
    ("name", "word"),
    [(name, text) for name, text in documented_settings().items() if not text.startswith("`")],
)
def test_a_setting_without_a_documented_default_has_none(name: str, word: str) -> None:
    default: Any = Settings.model_fields[name.lower()].default
    needed = name.lower() in REQUIRED
    assert word == "required" if needed else not default


def subclasses(kind: type[ServiceError]) -> set[type[ServiceError]]:
    return {kind}.union(*(subclasses(known) for known in kind.__subclasses__()))


async def test_every_route_and_every_error_code_is_documented(sqlite_url: str) -> None:
    text = re.sub(r"\{\w+\}", "{id}", read("docs/api.md").replace("?from=2026-05-01&to=2026-06-01", ""))
    paths = (await document(sqlite_url))["paths"]
    for path, methods in paths.items():
        for method in methods:
            assert f"`{method.upper()} {re.sub(r'{.*?}', '{id}', path)}`" in text, (method, path)
    operator_only = {"still_open", "not_now"}
    codes = {kind.code for kind in subclasses(ServiceError)} | {str(reason) for reason in Reason}
    text += read("docs/console.md")
    assert {code for code in codes - operator_only if f"`{code}`" not in text} == set()


NOT_SETTINGS = {
    "RECEIVER_URL",
    "RECEIVER_TOKEN",
    "DATABASE_URL_TEST",
    "DATABASE_POOLER_TEST",
    "RECEIVER_ALARM_",
    "RECEIVER_BIND",
} | {*("RECEIVER_POLL_", *(f"{name.upper()}_FILE" for name in SECRETS))}
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def each(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", DOCUMENTS, ids=each)
def test_every_setting_that_a_document_names_exists(path: Path) -> None:
    named = set(re.findall(r"\b(?:RIVYA|RECEIVER|DATABASE)_[A-Z_]+", path.read_text()))
    assert named - {name.upper() for name in Settings.model_fields} - NOT_SETTINGS == set()


@pytest.mark.parametrize("path", DOCUMENTS, ids=each)
def test_every_link_leads_to_a_file_and_a_heading(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if not re.match(r"https?:", target):
            name, _, anchor = target.partition("#")
            file = (path.parent / name).resolve() if name else path
            assert file.exists(), target
            headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE) if anchor else []
            anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert not anchor or anchor in anchors, target


@pytest.mark.parametrize("path", DOCUMENTS, ids=each)
def test_every_command_that_a_document_shows_is_understood(path: Path) -> None:
    """Each is run by a test of its own; this one finds a misspelt word before that."""
    Path("fox.png").touch()
    for line in commands(path):
        words = shlex.split(line)
        if words[:2] == ["docker", "compose"]:
            words = inside(words)
        if words and words[0].endswith("rivya-receiver"):
            understood(words[1:])
        if words and words[0] == "make":
            assert set(words[1:]) <= TARGETS | {"KEEP=1"}, line


def inside(words: list[str]) -> list[str]:
    """The command that a container runs, after its service was looked up; nothing where there is none."""
    services, rest = compose()["services"], words[3:]
    named = [word for word in rest if not word.startswith("-")]
    assert words[2] in {"up", "build", "run", "exec", "logs", "down"}
    assert not named or named[0] in services, words
    if words[2] == "run":
        return ["rivya-receiver", *named[1:]]
    return named[1:] if words[2] == "exec" else []


def understood(words: list[str]) -> None:
    """Raises what the command line would raise for these words; nothing is run."""
    command: Any = typer.main.get_command(cli)
    while hasattr(command, "commands") and words and words[0] in command.commands:
        command, words = command.commands[words[0]], words[1:]
    if hasattr(command, "commands"):
        assert command.invoke_without_command, words
    context = command.make_context("rivya-receiver", list(words))
    assert not context.args, words


def test_every_metric_that_a_document_names_exists() -> None:
    text = "".join(path.read_text() for path in DOCUMENTS)
    named = set(re.findall(r"`(receiver_[a-z_]+)`", text))
    metrics = [*REGISTRY.collect(), *CALLERS.collect()]
    here = {name for metric in metrics for name in (metric.name, f"{metric.name}_total", f"{metric.name}_info")}
    scraped = set(re.findall(r'_gauge\(\s*"(\w+)"', "".join(file.read_text() for file in (ROOT / "app").rglob("*.py"))))
    assert named - here - {f"receiver_{name}" for name in scraped} == {VERSION_TABLE}  # a table


def test_a_decision_has_six_lines_at_most() -> None:
    for record in read("docs/decisions.md").split("\n### ")[1:]:
        lines = [line for line in record.splitlines() if line and not line.startswith("## ")]
        assert len(lines) <= 6, lines[0]
        assert max(map(len, lines)) <= 120, lines[0]


def test_the_readme_can_be_read_in_ten_minutes() -> None:
    lines = read("README.md").splitlines()
    assert len(lines) <= 200
    assert max(map(len, lines)) <= 120
