"""Which proxy of the environment a URL is asked through."""

import pytest

from app.core.proxies import ProxyInvalid, proxy_for

PROXY = "http://user:password@proxy:3128"
VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*VARIABLES, *(name.lower() for name in VARIABLES)):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
def test_the_proxy_for_https_is_taken_or_else_the_one_for_everything(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    assert proxy_for("https://rivya.ai") is None
    monkeypatch.setenv(name, "proxy:3128")
    assert proxy_for("https://rivya.ai") == "http://proxy:3128"


@pytest.mark.parametrize(
    "url", ["http://rivya.ai", "http://x.localhost", "https://x.localhost", "https://127.0.0.2", "https://[::1]:9000"]
)
def test_plain_http_and_this_machine_are_asked_directly(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, PROXY)
    assert proxy_for(url) is None


@pytest.mark.parametrize(
    ("exceptions", "excepted", "others"),
    [
        ("*", ["rivya.ai", "8.8.8.8"], []),
        ("localhost,rivya.ai", ["rivya.ai", "api.rivya.ai", "RIVYA.ai."], ["notrivya.ai"]),
        (".cluster.local *.lan", ["a.cluster.local", "a.lan"], ["rivya.ai"]),
        ("rivya.ai:8443,other.ai:443", ["other.ai", "rivya.ai:8443"], ["rivya.ai"]),
        ("https://rivya.ai", ["rivya.ai"], ["other.ai"]),
        ("10.0.0.0/8,192.0.2.1", ["10.1.2.3", "192.0.2.1"], ["11.1.2.3", "rivya.ai"]),
        ("localhost,::1,fd07:b51a:cc66:f0::/64", ["[fd07:b51a:cc66:f0::7]"], ["[fd08::1]", "10.1.2.3", "rivya.ai"]),
        ("[fd07::]/16,[fd08::1],[fd09::1]:8443", ["[fd07::2]", "[fd08::1]", "[fd09::1]:8443"], ["[fd09::1]"]),
        (",, [::1 ,a:b:c,/,//", [], ["rivya.ai", "[fd08::1]"]),
    ],
)
def test_what_no_proxy_excepts_is_asked_directly(
    monkeypatch: pytest.MonkeyPatch, exceptions: str, excepted: list[str], others: list[str]
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", PROXY)
    monkeypatch.setenv("NO_PROXY", exceptions)
    assert [proxy_for(f"https://{host}") for host in excepted] == [None] * len(excepted)
    assert [proxy_for(f"https://{host}") for host in others] == [PROXY] * len(others)


@pytest.mark.parametrize("value", ["socks5://me:secret@proxy:1080", "http://[::1", "https://", "secret://x"])
def test_a_proxy_that_cannot_be_used_is_named_without_its_value(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("ALL_PROXY", value)
    with pytest.raises(ProxyInvalid, match=r"^ALL_PROXY: must be http://.*add it to NO_PROXY") as refused:
        proxy_for("https://rivya.ai")
    assert "secret" not in str(refused.value)
    monkeypatch.setenv("NO_PROXY", "rivya.ai")
    assert proxy_for("https://rivya.ai") is None
