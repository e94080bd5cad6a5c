"""Strict rules refuse every URL that Rivya is documented to refuse; local ones let this network in."""

import pytest

from app.sandbox.responses import RivyaError
from app.sandbox.webhooks import check_url

_INTERNAL = [
    "localhost",
    "127.0.0.1",
    "[::1]",
    "10.1.2.3",
    "192.168.0.1",
    "169.254.169.254",
    "[fd00::1]",
    "0.0.0.0",  # noqa: S104
    "receiver",
]


@pytest.mark.parametrize("host", _INTERNAL)
def test_strict_rules_refuse_internal_hosts(host: str) -> None:
    with pytest.raises(RivyaError, match="private network"):
        check_url(f"https://{host}:8000/x", "strict")


@pytest.mark.parametrize("host", _INTERNAL)
def test_local_rules_let_internal_hosts_in_over_plain_http(host: str) -> None:
    check_url(f"http://{host}:8000/x", "local")


@pytest.mark.parametrize("rules", ["strict", "local"])
def test_both_rules_take_a_public_https_url(rules: str) -> None:
    check_url("https://example.com:8443/hook?x=1", "strict" if rules == "strict" else "local")


def test_strict_rules_refuse_plain_http() -> None:
    with pytest.raises(RivyaError, match="https"):
        check_url("http://example.com/x", "strict")
