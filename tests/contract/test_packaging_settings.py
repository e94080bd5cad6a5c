"""`.env.example` tells the truth: every setting, with the default it has."""

import shutil

import pytest

from app.core.settings import Settings, load
from tests.support.deployment import ROOT, example_settings

REQUIRED = {
    "rivya_api_key": "rvya_sk_of_nobody",
    "receiver_public_url": "https://receiver.example.com",
    "receiver_encryption_keys": "c2FuZGJveC1vbmx5LW5vdC1hLXNlY3JldC0wMDAwMDA=",
}


def test_the_example_names_every_setting_and_no_other() -> None:
    assert set(example_settings()) == {name.upper() for name in Settings.model_fields}


def test_the_example_shows_the_defaults() -> None:
    shown = {name.lower(): value for name, value in example_settings().items() if value}
    assert load(**REQUIRED, **shown) == load(**REQUIRED)


def test_the_example_as_it_is_keeps_nobody_from_setting_things_in_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copy(ROOT / ".env.example", ".env")
    for name, value in REQUIRED.items():
        monkeypatch.setenv(name.upper(), value)
    assert load().receiver_public_url == REQUIRED["receiver_public_url"]
