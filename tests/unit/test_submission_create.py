"""The body and the key of a create are checked no further than we must."""

import hashlib
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import RequestInvalid
from app.submission.models import read_create, read_key


def test_a_body_is_kept_byte_for_byte_with_its_digest() -> None:
    body = b'{ "model":"z-image", "unheard_of": [1, 2],"client_request_id" : "order-1" }'
    create = read_create(body)
    assert (create.body, create.sent, create.digest) == (body, body, hashlib.sha256(body).hexdigest())
    assert create.client_request_id == "order-1"


def test_metadata_is_kept_and_not_sent() -> None:
    create = read_create(b'{"model": "m", "metadata": {"order": 7}, "seed": 36893488147419103232}')
    assert (create.metadata, create.sent) == ({"order": 7}, b'{"model":"m","seed":36893488147419103232}')
    create = read_create(b'{"model": "m", "metadata": null}')
    assert (create.metadata, create.sent) == (None, b'{"model":"m"}')


@pytest.mark.parametrize("body", [b'{"model": "m"}', b'{"model": "m", "client_request_id": null}'])
def test_a_client_request_id_is_optional(body: bytes) -> None:
    assert read_create(body).client_request_id is None


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b'["model"]', "JSON object"),
        (b'"model"', "JSON object"),
        (b"{}", "model"),
        (b'{"model": ""}', "model"),
        (b'{"model": "  "}', "model"),
        (b'{"model": 7}', "model"),
        (b'{"model": "m", "client_request_id": 7}', "client_request_id"),
        (b'{"model": "m", "metadata": "order 7"}', "metadata must be a JSON object"),
        (b'{"model": "m", "metadata": {"a": "\\u0000"}}', "metadata must not contain NUL"),
        (b'{"model": "m", "metadata": {"a": "%b"}}' % (b"x" * 16384), "metadata must be at most 16384 bytes"),
        (b'{"model": "m", "client_request_id": ""}', "client_request_id"),
        (b'{"model": "m", "client_request_id": "a\\u0000b"}', "client_request_id"),
        (b'{"model": "m", "client_request_id": "' + b"x" * 501 + b'"}', "client_request_id"),
    ],
)
def test_a_body_that_cannot_be_used_is_refused_with_a_reason(body: bytes, named: str) -> None:
    with pytest.raises(RequestInvalid, match=named) as refusal:
        read_create(body)
    assert (refusal.value.status, refusal.value.code) == (400, "validation_failed")


@given(body=st.binary())
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    with suppress(RequestInvalid):
        assert read_create(body).body == body


@pytest.mark.parametrize("key", ["k", "a b", "~" * 255])
def test_a_printable_key_is_taken_as_it_is(key: str) -> None:
    assert read_key([key]) == key


def test_without_a_key_there_is_none() -> None:
    assert read_key([]) is None


@pytest.mark.parametrize("values", [[""], ["x" * 256], ["é"], ["tab\t"], [" "], [" k"], ["k "], ["one", "two"]])
def test_a_key_that_is_no_key_is_refused(values: list[str]) -> None:
    with pytest.raises(RequestInvalid, match="Idempotency-Key"):
        read_key(values)
