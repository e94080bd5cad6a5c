"""An endpoint is ours by the key in its path, and in the same place however its URL is written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.endpoint.models import callback_url, is_path_key, is_same_host, is_same_place, masked, path_key_of

KEY = "Qm9_-kJ3x"
URL = f"https://receiver.example.com/rivya/webhook/{KEY}"


def test_the_callback_url_joins_without_a_double_slash() -> None:
    assert (
        callback_url("https://receiver.example.com", KEY) == callback_url("https://receiver.example.com/", KEY) == URL
    )


@pytest.mark.parametrize(
    "written",
    [
        URL,
        f"{URL}/",
        f"{URL}//",
        f"https://RECEIVER.example.com:443/rivya/webhook/{KEY}",
        f"{URL}?source=rivya",
        f"https://elsewhere.example.org/{KEY}",
        URL.replace("_", "%5F"),
        URL.lower(),
        URL.upper(),
    ],
)
def test_the_key_is_found_whatever_the_rest_looks_like(written: str) -> None:
    assert is_path_key(KEY, path_key_of(written))


@pytest.mark.parametrize("written", ["", "/", "https://a.example", "https://a.example/", "https://[", "http://a:b:c/d"])
def test_a_url_without_a_path_or_sense_has_no_key(written: str) -> None:
    assert path_key_of(written) is None


@given(st.text())
def test_no_text_makes_it_raise(text: str) -> None:
    path_key_of(text)
    is_same_place(text, URL)


@pytest.mark.parametrize(
    "written",
    [
        f"{URL}/",
        URL.replace("receiver", "RECEIVER"),
        URL.replace(".com", ".com:443"),
        URL.replace("https", "HTTPS"),
        URL.lower(),
    ],
)
def test_the_same_place_is_recognised(written: str) -> None:
    assert is_same_place(written, URL)
    assert is_same_place(URL, written)


@pytest.mark.parametrize(
    "written",
    [
        URL.replace("https", "http"),
        URL.replace(".com", ".com:8443"),
        URL.replace(".com", ".org"),
        f"{URL}x",
        "",
        "https://[",
    ],
)
def test_another_place_is_told_apart(written: str) -> None:
    assert not is_same_place(written, URL)


def test_a_masked_url_tells_four_characters_of_the_key() -> None:
    assert masked(URL, KEY) == "https://receiver.example.com/rivya/webhook/Qm9_****"
    assert masked("https://somewhere/else", KEY) == "****"


def test_the_same_host_is_recognised_whatever_port_and_path() -> None:
    assert is_same_host(URL, "https://RECEIVER.example.com:8443/elsewhere")
    assert not is_same_host(URL, URL.replace("receiver", "other"))
    assert not is_same_host(URL, "no url at all")
    assert not is_same_host("", "")
