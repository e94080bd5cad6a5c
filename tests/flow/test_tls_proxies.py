"""The proxies that deploy/ describes pass on what is public, unchanged and unbuffered, and nothing else."""

import asyncio
import hashlib
import hmac
import json
import time
from pathlib import Path

import httpx
import pytest

from tests.support.receiver_process import serving
from tests.support.receivers import API_KEY, TOKEN
from tests.support.tls_proxies import KINDS, tls_proxy

SECRET = "whsec_of_this_test"
SETTINGS = {
    "RIVYA_API_KEY": API_KEY,
    "RIVYA_SIGNING_SECRET": SECRET,
    "RIVYA_SIGNATURE_SCHEME": "timestamped",
    "RIVYA_BASE_URL": "http://127.0.0.1:9",
    "RECEIVER_API_TOKENS": f"tests:admin:{TOKEN}",
}
DATA = {"id": "task_1", "status": "succeeded", "text": "a\r\n ü/%2F"}
BODY = json.dumps({"id": "evt_1", "type": "generation.succeeded", "data": DATA}, ensure_ascii=False).encode()
INSIDE = ("/metrics", "/readyz", "/livez", "/docs", "/openapi.json", "/")


def signature(body: bytes) -> str:
    now = int(time.time())
    return f"t={now},v1={hmac.new(SECRET.encode(), b'%d.%b' % (now, body), hashlib.sha256).hexdigest()}"


@pytest.mark.parametrize("kind", KINDS)
async def test_deliveries_and_the_api_are_public_and_nothing_else(kind: str, tmp_path: Path) -> None:
    async with serving(SETTINGS, tmp_path) as receiver:
        with tls_proxy(kind, receiver.port, tmp_path) as (url, context):
            async with httpx.AsyncClient(base_url=url, verify=context, trust_env=False, timeout=60) as client:
                headers = {"Rivya-Signature": signature(BODY), "Content-Type": "application/json"}
                delivered = await client.post("/rivya/webhook", content=BODY, headers=headers)
                changed = await client.post("/rivya/webhook", content=BODY + b" ", headers=headers)
                stranger = await client.get("/api/v1/generations")
                known = await client.get("/api/v1/generations", headers={"Authorization": f"Bearer {TOKEN}"})
                inside = [(await client.get(path)).status_code for path in INSIDE]
    assert (delivered.status_code, changed.status_code) == (200, 401)
    assert (stranger.status_code, known.status_code) == (401, 200)
    assert set(inside) == {404}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_stream_is_passed_on_piece_by_piece(kind: str, tmp_path: Path) -> None:
    first_piece_came = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await reader.readuntil(b"first")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        writer.write(b"9\r\ndata: 1\n\n\r\n")
        await writer.drain()
        await first_piece_came.wait()
        writer.write(b"9\r\ndata: 2\n\n\r\n0\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, asyncio.timeout(20):
        with tls_proxy(kind, server.sockets[0].getsockname()[1], tmp_path) as (url, context):
            client = httpx.AsyncClient(verify=context, trust_env=False, timeout=60)
            async with client, client.stream("POST", f"{url}/api/v1/chat/completions", content=b"first") as answer:
                pieces = answer.aiter_bytes()
                assert await anext(pieces) == b"data: 1\n\n"
                first_piece_came.set()
                assert b"".join([piece async for piece in pieces]) == b"data: 2\n\n"
