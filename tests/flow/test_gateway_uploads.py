"""Uploads pass through as they come, and those that Rivya would not take are stopped early."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from app.gateway.upload_limit import LIMITS
from app.sandbox.faults import ApiFault
from app.sandbox.server import serve_sandbox
from tests.support.gateway_harness import open_gateway
from tests.support.scripted_provider import answering, scripted

FILES = "/api/v1/files"
TYPE = {"Content-Type": "multipart/form-data; boundary=b0und"}
MEGABYTE = 1024 * 1024
END = b"\r\n--b0und--\r\n"


def head(kind: str) -> bytes:
    return (
        f'--b0und\r\nContent-Disposition: form-data; name="kind"\r\n\r\n{kind}\r\n--b0und\r\n'
        'Content-Disposition: form-data; name="file"; filename="f"\r\nContent-Type: x/y\r\n\r\n'
    ).encode()


async def pieces(kind: str, size: int) -> AsyncIterator[bytes]:
    """A form with a file of `size` zeros, without a declared length."""
    yield head(kind)
    for _ in range(size // 65_536):
        yield bytes(65_536)
    yield bytes(size % 65_536) + END


def code_of(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


async def test_a_form_arrives_byte_for_byte_with_and_without_a_declared_length() -> None:
    async with scripted(answering(b"{}")) as rivya, open_gateway(rivya.url) as room:
        body = head("image") + bytes(range(256)) * 1000 + END
        await room.client.post(FILES, content=body, headers=TYPE)
        await room.client.post(FILES, content=_one(body), headers=TYPE)
        assert [heard.body == body for heard in rivya.heard] == [True, True]
        assert [heard.header("content-length") for heard in rivya.heard] == [str(len(body)), None]
        assert {heard.header("content-type") for heard in rivya.heard} == set(TYPE.values())


async def _one(body: bytes) -> AsyncIterator[bytes]:
    yield body


@pytest.mark.parametrize("kind", LIMITS)
async def test_a_file_beyond_the_limit_of_its_kind_is_stopped(kind: str) -> None:
    async with serve_sandbox() as rivya, open_gateway(rivya.base_url) as room:
        answer = await room.client.post(FILES, content=pieces(kind, LIMITS[kind] + 1), headers=TYPE)
        assert code_of(answer) == (413, "payload_too_large")
        assert f"kind {kind} has at most {LIMITS[kind] // MEGABYTE} MB" in answer.json()["error"]["message"]
        assert rivya.sandbox.state()["files"] == []
        assert room.gateway.limit.in_use == 0


async def test_a_declared_length_beyond_every_limit_is_refused_without_a_byte_being_read_or_sent() -> None:
    async with scripted(answering(b"{}")) as rivya, open_gateway(rivya.url) as room:
        host, port = room.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        token = room.client.headers["Authorization"]
        writer.write(
            f"POST {FILES} HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\nContent-Length: {60 * MEGABYTE}\r\n"
            f"Content-Type: {TYPE['Content-Type']}\r\nExpect: 100-continue\r\n\r\n".encode()
        )
        assert (await reader.readline()).startswith(b"HTTP/1.1 413 ")
        writer.close()
        await writer.wait_closed()
        assert rivya.heard == []


async def test_an_upload_is_sent_once_even_where_rivya_says_not_now() -> None:
    async with serve_sandbox() as rivya, open_gateway(rivya.base_url) as room:
        rivya.sandbox.faults.api = [ApiFault("files.create", status=503)]
        headers = {**TYPE, "Idempotency-Key": "k"}
        answer = await room.client.post(FILES, content=head("image") + b"x" + END, headers=headers)
        assert code_of(answer) == (503, "public_api_disabled")
        assert rivya.sandbox.calls.counts["files.create"] == 1


async def test_a_caller_that_leaves_in_the_midst_of_an_upload_ends_it_at_rivya() -> None:
    async with scripted(answering(b"{}")) as rivya, open_gateway(rivya.url) as room:
        host, port = room.url.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        token = room.client.headers["Authorization"]
        writer.write(
            f"POST {FILES} HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\nContent-Length: {MEGABYTE}\r\n"
            f"Content-Type: {TYPE['Content-Type']}\r\n\r\n".encode()
            + head("image")
        )
        while room.gateway.limit.in_use == 0:
            await asyncio.sleep(0)
        writer.close()
        await writer.wait_closed()
        async with asyncio.timeout(5):
            while room.gateway.limit.in_use > 0:
                await asyncio.sleep(0)
        assert rivya.heard == []


async def test_an_answer_that_comes_before_the_body_has_ended_is_passed_on() -> None:
    async with serve_sandbox() as rivya, open_gateway(rivya.base_url) as room:
        rivya.sandbox.faults.api = [ApiFault("files.create", status=401)]
        answer = await room.client.post(FILES, content=pieces("video", 20 * MEGABYTE), headers=TYPE)
        assert code_of(answer) == (401, "api_key_invalid")
