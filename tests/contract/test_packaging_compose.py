"""docker-compose.yml holds together: names meet, commands parse, and the settings it gives are accepted."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from app.core.settings import Settings, load
from tests.support.deployment import compose, example_settings

# The Compose Specification's words, as far as they are used here: a misspelt one would be found out at deployment only.
TOP = {"services", "volumes"}
SERVICE = {
    *("build", "cap_drop", "command", "depends_on", "env_file", "environment", "healthcheck", "image", "mem_limit"),
    *("network_mode", "pids_limit", "ports", "profiles", "read_only", "restart", "security_opt", "stop_grace_period"),
    *("tmpfs", "volumes"),
}
HEALTHCHECK = {"test", "interval", "timeout", "retries"}

SERVICES: dict[str, dict[str, Any]] = compose()["services"]
OURS = sorted(name for name, service in SERVICES.items() if "build" in service)
RECEIVERS = sorted(name for name in OURS if SERVICES[name]["command"] == ["serve"])


def test_every_word_is_one_of_the_specification() -> None:
    assert {word for word in compose() if not word.startswith("x-")} == TOP
    assert {word for service in SERVICES.values() for word in service} <= SERVICE
    assert {word for service in SERVICES.values() for word in service.get("healthcheck", {})} <= HEALTHCHECK


def test_every_volume_in_use_is_declared_and_no_other() -> None:
    used = {volume.partition(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])}
    assert used == set(compose()["volumes"])


def _dependencies() -> Iterator[tuple[str, str, str]]:
    for name, service in SERVICES.items():
        for needed, how in service.get("depends_on", {}).items():
            yield name, needed, how["condition"]


def test_who_waits_for_a_healthy_service_waits_for_one_that_tells() -> None:
    for _, needed, condition in _dependencies():
        assert condition == "service_healthy"
        assert "healthcheck" in SERVICES[needed]


def test_a_service_needs_only_what_its_own_profile_starts() -> None:
    for name, needed, _ in _dependencies():
        assert set(SERVICES[needed].get("profiles", [])) <= set(SERVICES[name].get("profiles", []))


def test_a_shared_network_is_that_of_a_service_which_publishes_the_ports() -> None:
    shared = {name: service["network_mode"] for name, service in SERVICES.items() if "network_mode" in service}
    for name, mode in shared.items():
        owner = mode.removeprefix("service:")
        assert owner in SERVICES[name]["depends_on"]
        assert "ports" in SERVICES[owner]
        assert "ports" not in SERVICES[name]


def test_no_two_services_publish_the_same_port_and_none_to_the_network() -> None:
    ports = [
        re.sub(r"\$\{\w+:-([\d.]+)\}", r"\1", port)
        for service in SERVICES.values()
        for port in service.get("ports", [])
    ]
    published = [port.split(":")[-2] for port in ports]
    assert len(published) == len(set(published))
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


@pytest.mark.parametrize("name", OURS)
def test_a_container_of_ours_writes_only_to_its_volume(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["tmpfs"] == ["/tmp"]  # noqa: S108 - a path in the container
    assert [volume.split(":")[1] for volume in service["volumes"]] == ["/data"]


@pytest.mark.parametrize("name", RECEIVERS)
def test_a_receiver_is_given_known_settings_only(name: str) -> None:
    assert set(SERVICES[name]["environment"]) <= {field.upper() for field in Settings.model_fields}


def test_the_receiver_takes_the_rest_from_a_filled_in_example() -> None:
    given = {name.lower(): value for name, value in SERVICES["receiver"]["environment"].items()}
    password = re.sub(r"\$\{\w+:-(\w+)\}", r"\1", given.pop("database_url"))
    needed = {name for name, value in example_settings().items() if value is None}
    assert load(
        **given,
        database_url=password,
        rivya_api_key="rvya_sk_of_nobody",
        receiver_public_url="https://receiver.example.com",
        receiver_encryption_keys="c2FuZGJveC1vbmx5LW5vdC1hLXNlY3JldC0wMDAwMDA=",
        receiver_api_tokens="someone:read:0123456789abcdef",
    ).database_url.startswith("postgresql+asyncpg://")
    assert needed == {"RIVYA_API_KEY", "RECEIVER_PUBLIC_URL", "RECEIVER_ENCRYPTION_KEYS", "RECEIVER_API_TOKENS"}


def test_the_receiver_of_the_sandbox_needs_no_other_settings() -> None:
    given = {name.lower(): value for name, value in SERVICES["receiver-sandbox"]["environment"].items()}
    assert load(**given).registers_endpoint
