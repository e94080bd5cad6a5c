"""The command that the image runs is the one that is tested, and its health is told by its own healthcheck."""

import asyncio
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import typer.main

from app.cli import cli
from tests.support.deployment import Instruction, compose, final_stage
from tests.support.ports import free_port
from tests.support.receiver_process import COMMAND, serving

COMMANDS = {name: service["command"] for name, service in compose()["services"].items() if "build" in service}
SETTINGS = {
    "RIVYA_API_KEY": "rvya_sk_of_nobody",
    "RIVYA_SIGNING_SECRET": "whsec_of_nobody",
    "RIVYA_BASE_URL": "http://127.0.0.1:9",
}


async def test_the_healthcheck_knows_a_live_receiver_from_a_dead_one(tmp_path: Path) -> None:
    async with serving(SETTINGS, tmp_path, program=COMMAND) as receiver:
        alive = exit_status_of_healthcheck(receiver.port)
    assert alive == 0
    assert exit_status_of_healthcheck(receiver.port) != 0


async def test_metrics_and_health_on_a_port_of_their_own_are_not_on_the_port_of_the_api(tmp_path: Path) -> None:
    port, metrics_port = free_port(), free_port()
    ports = {"RECEIVER_PORT": str(port), "RECEIVER_METRICS_PORT": str(metrics_port)}
    paths = ("/livez", "/readyz", "/metrics", "/api/v1/generations", "/openapi.json", "/docs")
    async with (
        serving({**SETTINGS, **ports}, tmp_path, port=metrics_port) as receiver,
        httpx.AsyncClient(timeout=60) as client,
    ):
        urls = [f"http://127.0.0.1:{each}{path}" for each in (metrics_port, port) for path in paths]
        statuses = [(await client.get(url)).status_code for url in urls]
        assert exit_status_of_healthcheck(port, **ports) == 0
        assert await asyncio.to_thread(receiver.terminate) == 0
    assert statuses.pop(1) in (200, 503)  # it may not be ready yet
    assert statuses == [200, 200, 404, 404, 404, 404, 404, 404, 401, 200, 200]


def exit_status_of_healthcheck(port: int, **ports: str) -> int:
    _options, _, command = final_stage()["HEALTHCHECK"].rest.partition("CMD ")
    _python, *arguments = Instruction("CMD", command).words
    environment = {"RECEIVER_PORT": str(port), **ports}
    return subprocess.run([sys.executable, *arguments], env=environment, check=False, capture_output=True).returncode


@pytest.mark.parametrize("service", COMMANDS)
def test_a_command_of_docker_compose_is_one_that_the_image_understands(service: str) -> None:
    word, *arguments = COMMANDS[service]
    typer.main.get_command(cli).commands[word].make_context(word, arguments)  # type: ignore[attr-defined]


def test_every_word_of_the_command_has_a_help_text() -> None:
    commands = typer.main.get_command(cli).commands  # type: ignore[attr-defined]
    assert commands
    assert [name for name, command in commands.items() if not command.help] == []
