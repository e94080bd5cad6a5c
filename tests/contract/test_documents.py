"""The documents agree with the code: settings, routes, commands, metrics and links that they name exist."""

import re
from typing import Any

import pytest

from app.core.errors import ServiceError
from app.core.settings import Settings, load
from app.rivya.signature import Reason
from tests.contract.test_service import document
from tests.documents import read

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
    assert set(shown) | set(REQUIRED) | {"rivya_signing_secret", "receiver_api_tokens"} >= {
        name for name, field in Settings.model_fields.items() if field.default is not None
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


async def test_every_route_and_every_error_code_is_documented(monkeypatch: pytest.MonkeyPatch, sqlite_url: str) -> None:
    text = re.sub(r"\{\w+\}", "{id}", read("docs/api.md").replace("?from=2026-05-01&to=2026-06-01", ""))
    paths = (await document(monkeypatch, sqlite_url))["paths"]
    for path, methods in paths.items():
        for method in methods:
            assert f"`{method.upper()} {re.sub(r'{.*?}', '{id}', path)}`" in text, (method, path)
    operator_only = {"still_open", "not_now"}
    codes = {kind.code for kind in subclasses(ServiceError)} | {str(reason) for reason in Reason}
    assert {code for code in codes - operator_only if f"`{code}`" not in text} == set()
