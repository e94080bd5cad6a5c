"""The image is built, and runs as it is deployed: its own files read-only, user 10001, no capabilities."""

import http.client
import json
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.core.setting_sources import SECRETS
from tests.conftest import REPORTED
from tests.support.containers import Container, Engine, version
from tests.support.deployment import Instruction, final_stage
from tests.support.ports import free_port

MOST_BYTES = 280_000_000
START_SECONDS = 30
TOKEN = "sandbox-token-of-nobody"
HEALTH = Instruction("CMD", final_stage()["HEALTHCHECK"].rest.partition("CMD ")[2]).words
"""The command of the health check."""

Make = Callable[..., Container]


@pytest.fixture(scope="session")
def engine() -> Engine:
    return Engine()


@pytest.fixture(scope="session")
def image(engine: Engine) -> dict[str, Any]:
    """The image's description, after it was built."""
    return engine.build()


@pytest.fixture
def make(engine: Engine, image: dict[str, Any]) -> Iterator[Make]:
    """Makes containers of the image, which are removed after the test."""
    containers: list[Container] = []

    def container(*words: str, **options: Any) -> Container:
        containers.append(Container(engine, f"receiver-{secrets.token_hex(4)}", *words, **options))
        return containers[-1]

    yield container
    for each in reversed(containers):
        each.remove()


@pytest.fixture
def volume(engine: Engine) -> Iterator[str]:
    name = f"receiver-{secrets.token_hex(4)}"
    engine.run("volume", "create", name)
    yield name
    engine.run("volume", "rm", "--force", name)


@pytest.fixture
def settings(make: Make) -> dict[str, str]:
    """What a receiver needs, with a sandbox that runs in a container of its own."""
    port, rivya = free_port(), free_port()
    sandbox = make("sandbox", "--port", str(rivya))
    sandbox.start()
    _answers(sandbox, rivya, "/sandbox/faults", 200)
    return {
        "RIVYA_API_KEY": "rvya_sk_sandbox",
        "RIVYA_BASE_URL": f"http://127.0.0.1:{rivya}",
        "RECEIVER_PORT": str(port),
        "RECEIVER_PUBLIC_URL": f"http://127.0.0.1:{port}",
        "RECEIVER_API_TOKENS": f"test:admin:{TOKEN}",
        "RECEIVER_ENCRYPTION_KEYS": "c2FuZGJveC1vbmx5LW5vdC1hLXNlY3JldC0wMDAwMDA=",
    }


def test_the_image_is_small(image: dict[str, Any], record_property: Callable[[str, object], None]) -> None:
    record_property(REPORTED, f"{image['Size'] / 1e6:.0f} MB uncompressed, of {MOST_BYTES / 1e6:.0f}")
    assert image["Size"] <= MOST_BYTES


def test_the_image_says_what_it_is(image: dict[str, Any]) -> None:
    labels = {name.removeprefix("org.opencontainers.image."): text for name, text in image["Config"]["Labels"].items()}
    assert (labels["title"], labels["licenses"], labels["version"]) == ("rivya-receiver", "MIT", version())
    assert labels["revision"] == "tested"
    assert labels["description"]
    assert (image["Config"]["User"], image["Config"]["WorkingDir"]) == ("10001:10001", "/data")
    assert image["Config"]["StopSignal"] in ("SIGTERM", "15")


def test_the_image_has_no_compiler_and_our_environment_no_pip(make: Make, settings: dict[str, str]) -> None:
    receiver = make(settings=settings)
    receiver.start()
    _answers(receiver, int(settings["RECEIVER_PORT"]), "/livez", 200)
    assert receiver.execute("sh", "-c", "command -v cc gcc g++ c++ clang make ld").returncode
    assert receiver.execute("python", "-c", "import pip").returncode
    assert not receiver.execute("python", "-c", "import app.main").returncode
    assert receiver.execute("rivya-receiver", "--version").stdout == f"rivya-receiver {version()}\n"


def test_a_receiver_is_confined(make: Make, settings: dict[str, str]) -> None:
    receiver = make(settings=settings)
    receiver.start()
    _answers(receiver, int(settings["RECEIVER_PORT"]), "/livez", 200)
    status = dict(line.split(":\t", 1) for line in receiver.execute("cat", "/proc/1/status").stdout.splitlines())
    assert set(status["Uid"].split()) == set(status["Gid"].split()) == {"10001"}
    assert {int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert status["NoNewPrivs"] == "1"
    assert receiver.inspect()["Config"]["Healthcheck"]["Test"] == ["CMD", *HEALTH]
    for path in ("/x", "/opt/receiver/x", "/var/x"):
        assert "Read-only file system" in receiver.execute("touch", path).stderr
    for path in ("/tmp/x", "/data/x"):  # noqa: S108 - in the container
        assert not receiver.execute("touch", path).returncode


def test_a_receiver_on_sqlite_works_stops_and_goes_on_with_the_same_volume(
    make: Make, settings: dict[str, str], volume: str
) -> None:
    receiver = make(settings=settings, volume=volume)
    receiver.start()
    port = int(settings["RECEIVER_PORT"])
    _all_is_well(receiver, port)
    generation = _settled(port)
    _stops(receiver)
    receiver.start_again()
    _all_is_well(receiver, port)
    assert _get(port, f"/api/v1/generations/{generation}")["status"] == "succeeded"
    _stops(receiver)
    # Another container: nothing but the volume is needed.
    heir = make(settings=settings, volume=volume)
    heir.start()
    _all_is_well(heir, port)
    assert _get(port, f"/api/v1/generations/{generation}")["status"] == "succeeded"


def test_a_receiver_on_postgresql_takes_mounted_secrets_a_migrated_database_and_a_port_for_metrics(
    make: Make, settings: dict[str, str], empty_postgres_url: str, tmp_path: Path
) -> None:
    """As deploy/kubernetes runs it."""
    given = {**settings, "DATABASE_URL": empty_postgres_url, "RECEIVER_MIGRATE_ON_START": "false"}
    for name in SECRETS:
        if value := given.pop(name.upper(), ""):
            (tmp_path / name).write_text(f"{value}\n")
    tmp_path.chmod(0o755)
    before, migrated, after = [
        make("migrate", *words, secrets=tmp_path).run() for words in (("--check",), (), ("--check", "--json"))
    ]
    assert (before.returncode, migrated.returncode, after.returncode) == (1, 0, 0), migrated.stderr
    metrics_port = free_port()
    receiver = make(settings={**given, "RECEIVER_METRICS_PORT": str(metrics_port)}, secrets=tmp_path)
    receiver.start()
    _all_is_well(receiver, metrics_port)
    port = int(settings["RECEIVER_PORT"])
    _settled(port)
    _answers(receiver, port, "/metrics", 404)
    config = receiver.execute("rivya-receiver", "config").stdout
    assert "/run/secrets/rivya_api_key" in config
    assert settings["RIVYA_API_KEY"] not in config
    _stops(receiver)


def _all_is_well(receiver: Container, port: int) -> None:
    _answers(receiver, port, "/readyz", 200)
    assert not receiver.execute(*HEALTH).returncode
    for _ in range(START_SECONDS):
        checked = receiver.execute("rivya-receiver", "check")
        if not checked.returncode:
            return
    pytest.fail(f"{checked.stdout}{checked.stderr}{receiver.log()}")


def _stops(receiver: Container) -> None:
    began = time.monotonic()
    assert receiver.stop() == 0, receiver.log()
    assert time.monotonic() - began < 10


def _settled(port: int) -> str:
    """The id of a generation that was submitted and has succeeded."""
    models = _get(port, "/api/v1/models")["data"]
    model = next(model["id"] for model in models if model["category"] == "image")
    created = _get(port, "/api/v1/generations", {"model": model, "input": {"prompt": "a lighthouse"}})
    generation = str(created["id"])
    for _ in range(10):
        if _get(port, f"/api/v1/generations/{generation}?wait=5")["status"] == "succeeded":
            return generation
    pytest.fail("the generation has not settled")


def _get(port: int, path: str, body: object = None) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json", "Idempotency-Key": "one"}
    connection.request("GET" if body is None else "POST", path, None if body is None else json.dumps(body), headers)
    response = connection.getresponse()
    text = response.read()
    connection.close()
    assert response.status < 300, text
    return json.loads(text)


def _answers(container: Container, port: int, path: str, status: int) -> None:
    """Wait until the container answers so."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", path)
            if connection.getresponse().status == status:
                return
        except (OSError, http.client.HTTPException):
            container.execute("true")  # a pause
        finally:
            connection.close()
    pytest.fail(f"{path} does not answer {status}:\n{container.log()}")
