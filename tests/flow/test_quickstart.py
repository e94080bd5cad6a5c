"""The quickstart works as it is shown: its curl lines, its program, its command lines; /docs shows the same."""

import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from app.sandbox.server import ServedSandbox, serve_sandbox
from app.sandbox.settings import SandboxSettings
from app.sandbox.state import Sandbox
from tests.support.asgi_service import document
from tests.support.commands import Ended, program, program_path
from tests.support.deployment import ROOT
from tests.support.documents import blocks, section
from tests.support.ports import free_port
from tests.support.receiver_process import COMMAND
from tests.support.receivers import API_KEY, TOKEN, Receiver, receiver

SCRIPT = (ROOT / "app" / "api" / "quickstart.sh").read_text()
QUICKSTART = section("docs/api.md", "## Quickstart")
IN_SHORT = section("README.md", "## Use it from your application")
PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)
# A curl that hangs must not hang the test.
CURL = '#!/bin/sh\nexec "{real}" --max-time 60 "$@"\n'


@asynccontextmanager
async def a_receiver(url: str, directory: Path) -> AsyncIterator[tuple[ServedSandbox, Receiver]]:
    sandbox = Sandbox(settings=SandboxSettings(speed=10))
    allowed = "example.com,127.0.0.1"  # a host of this list is not looked up
    async with (
        serve_sandbox(sandbox) as rivya,
        receiver(rivya, url, directory, RECEIVER_NOTIFY_ALLOW=allowed) as service,
    ):
        yield rivya, service


async def ran(*words: str, directory: Path, **variables: str) -> Ended:
    """How a program ended; the first folder of its PATH is `directory`/bin, where `curl` has a time limit."""
    programs = directory / "bin"
    programs.mkdir(exist_ok=True)
    (programs / "curl").write_text(CURL.format(real=program_path("curl")))
    (programs / "curl").chmod(0o755)
    path = os.pathsep.join([str(programs), str(COMMAND.parent), os.environ["PATH"]])
    return await program(*words, environment={"PATH": path, **variables}, directory=directory)


async def test_every_curl_line_works_as_it_is_shown(sqlite_url: str, tmp_path: Path) -> None:
    async with a_receiver(sqlite_url, tmp_path) as (rivya, service):
        variables = {"RECEIVER_URL": service.process.url, "RECEIVER_TOKEN": TOKEN}
        ended = await ran(
            "bash", "-euo", "pipefail", "-c", blocks(QUICKSTART, "sh")[0], directory=tmp_path, **variables
        )
        assert ended.status == 0, f"{ended.output}\n{ended.errors}\n{service.process.log()}"
        [generation] = rivya.sandbox.generations.by_id.values()
        session, _ = rivya.sandbox.chat.sessions.values()  # and that of the stream
    assert generation.client_request_id == "order-1"
    assert len(rivya.sandbox.files.by_id) == 1
    assert [message["content"] for message in session.messages if message["role"] == "user"] == [
        "Name a fox.",
        "Another one.",
    ]
    assert (tmp_path / "fox.png").read_bytes().startswith(b"\x89PNG")
    for expected in (
        '"metadata":{"order":7}',
        '"current_credits":',
        '"submitted_by":"tests"',
        '"signing_secret":"whsec_',
        "event: message.delta",
    ):
        assert expected in ended.output


async def test_a_failing_step_stops_the_quickstart_and_shows_the_error(sqlite_url: str, tmp_path: Path) -> None:
    async with a_receiver(sqlite_url, tmp_path) as (_, service):
        variables = {"RECEIVER_URL": service.process.url, "RECEIVER_TOKEN": "a-token-that-nobody-has"}
        script = blocks(QUICKSTART, "sh")[0]
        ended = await ran("bash", "-euo", "pipefail", "-c", script, directory=tmp_path, **variables)
    assert ended.status != 0
    assert '"code":"api_key_invalid"' in ended.output
    assert "error: 401" in ended.errors
    assert ended.output.count("\n") == 1


async def test_the_program_says_the_same_of_rivya_and_of_a_receiver(sqlite_url: str, tmp_path: Path) -> None:
    [program] = blocks(QUICKSTART, "python")
    async with a_receiver(sqlite_url, tmp_path) as (rivya, service):
        run = (sys.executable, "-c", program)
        direct = await ran(*run, directory=tmp_path, BASE_URL=rivya.base_url, API_KEY=API_KEY)
        relayed = await ran(*run, directory=tmp_path, BASE_URL=service.process.url, API_KEY=TOKEN)
    assert (direct.status, relayed.status) == (0, 0), direct.errors + relayed.errors
    assert steps_of(direct) == steps_of(relayed)
    assert re.search(r"^generation: succeeded \{", relayed.output, re.MULTILINE)
    assert "stream: event: message.completed" in relayed.output


def steps_of(ended: Ended) -> list[str]:
    """What was printed, without what each run has of its own: ids, times, and the credits spent meanwhile."""
    own = r"(task|chat|chatcmpl|msg)_\w+|\d{4}-\d\d-\d\dT[\d:.]+Z|(?<=credits: )\d+"
    return re.sub(own, "…", ended.output).splitlines()


async def test_what_the_readme_shows_to_an_application_works(sqlite_url: str, tmp_path: Path) -> None:
    [program] = blocks(IN_SHORT, "python")
    nobody = f"http://127.0.0.1:{free_port()}/"
    script = "".join(blocks(IN_SHORT, "sh")).replace("https://example.com/rivya/webhook", nobody)
    async with a_receiver(sqlite_url, tmp_path) as (rivya, service):
        variables = {"RECEIVER_URL": service.process.url, "RECEIVER_TOKEN": TOKEN}
        curl = await ran("bash", "-euo", "pipefail", "-c", script, directory=tmp_path, **variables)
        python = await ran(sys.executable, "-c", program, directory=tmp_path, **variables)
        created_there = {generation.client_request_id for generation in rivya.sandbox.generations.by_id.values()}
    assert (curl.status, python.status) == (0, 0), curl.errors + python.errors
    assert curl.output.count('"client_request_id":"order-1"') == 2
    assert curl.output.count('"signing_secret":"whsec_') == 1
    assert python.output.startswith("succeeded {'primary_url': ")
    assert created_there == {"order-1", "order-2"}


async def test_every_command_line_works_as_it_is_shown(sqlite_url: str, tmp_path: Path) -> None:
    script = blocks(QUICKSTART, "sh")[1]
    export, *commands = script.splitlines()
    assert export.startswith("export RECEIVER_URL=")
    (tmp_path / "fox.png").write_bytes(PNG)
    assert len(commands) == len([line for line in commands if line.startswith("rivya-receiver ")])
    async with a_receiver(sqlite_url, tmp_path) as (rivya, service):
        variables = {"RECEIVER_URL": service.process.url, "RECEIVER_TOKEN": TOKEN}
        lines = "\n".join(commands)
        ended = await ran("bash", "-euo", "pipefail", "-c", lines, directory=tmp_path, **variables)
        assert ended.status == 0, f"{ended.output}\n{ended.errors}\n{service.process.log()}"
        [generation] = rivya.sandbox.generations.by_id
    assert f"generation    {generation}" in ended.output
    assert re.search(r"^submitted by  tests$", ended.output, re.MULTILINE)
    assert re.search(r"^\d{4}-\d\d-\d\d +tests +z-image +1 +0 +1 +1$", ended.output, re.MULTILINE)
    assert "Turn 1: you said “Name another.”" in ended.output


async def test_the_document_and_the_openapi_description_show_the_same_steps(sqlite_url: str) -> None:
    assert SCRIPT in (await document(sqlite_url))["info"]["description"]
    assert blocks(QUICKSTART, "sh")[0] == SCRIPT


async def test_every_path_of_the_steps_is_a_documented_route(sqlite_url: str) -> None:
    paths = (await document(sqlite_url))["paths"]
    templates = [re.sub(r"{\w+}", "[^/]+", path) for path in paths]
    shown = {path.rstrip("\"'") for path in re.findall(r"\$URL(/[^\s?|)]+)", SCRIPT)}
    assert len(shown) > 10
    for path in shown:
        assert any(re.fullmatch(template, path) for template in templates), path
