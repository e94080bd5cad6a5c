"""The service as it is put together."""

import httpx
import pytest

from app.rivya.schemes import SchemeInvalid
from tests.support.asgi_service import make_service


async def test_an_unsigned_delivery_and_its_answer_share_one_request_id(sqlite_url: str) -> None:
    receiver = make_service(sqlite_url)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(receiver.app), base_url="http://receiver") as client:
        answer = await client.post("/rivya/webhook", content=b"{}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "no_secret")
        assert answer.json()["error"]["requestId"] == answer.headers["x-request-id"]
    await receiver.close()


def test_a_scheme_that_is_none_is_refused_with_what_would_be_right(sqlite_url: str) -> None:
    with pytest.raises(SchemeInvalid, match="unknown signature family: use auto"):
        make_service(sqlite_url, RIVYA_SIGNATURE_SCHEME="md5")
