"""Which URLs Rivya can call, and which addresses are this very machine."""

import pytest

from app.core.urls import checked_base_url, checked_public_url, is_loopback


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST.", "receiver.localhost", "127.0.0.1", "127.9.9.9", "::1"])
def test_this_machine_is_known_by_each_of_its_names(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["", "rivya.ai", "localhost.rivya.ai", "10.0.0.1", "fe80::1"])
def test_every_other_host_is_not_this_machine(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    "url", ["https://receiver.example.com/", "https://8.8.8.8", "https://[2606:4700::1111]:8443/a/"]
)
def test_a_public_https_url_is_taken_without_its_last_slash(url: str) -> None:
    assert checked_public_url(url) == url.rstrip("/")


@pytest.mark.parametrize("url", ["https://receiver.example.com/a b", "https://receiver.example.com/a\u00a0b"])
def test_a_url_with_a_space_in_it_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="must not contain spaces"):
        checked_public_url(url)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9000", "http://localhost:9000", "https://rivya.ai"])
def test_rivya_may_be_on_this_machine_without_https(url: str) -> None:
    assert checked_base_url(url) == url
