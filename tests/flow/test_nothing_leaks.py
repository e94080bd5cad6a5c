"""Without a token nothing is told of a generation, not even that it exists; no log and no error tells a secret."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest
import uvloop

from app.core.auth import Role
from app.rivya.schemes import parse_scheme
from app.rivya.signature import sign
from tests.support.asgi_service import TOKENS
from tests.support.clock import NOON
from tests.support.fast_path_comparison import LAST, ServerPair, delivery, read, server_pair
from tests.support.intake_harness import SECRET, event
from tests.support.ports import free_port
from tests.support.receiver_process import serving
from tests.support.receivers import API_KEY, ENCRYPTION_KEY, TOKEN, environment

KNOWN, UNKNOWN = "task_0", "task_9"
PATHS = ("/api/v1/generations/{}", "/api/v1/generations/{}?wait=0", "/api/v1/generations/{}/transitions",
         "/api/v1/deliveries/evt_{}")  # fmt: skip
PRIVATE = "a-prompt-of-somebody"
WRONG = (
    b"",
    b"Authorization: Bearer\r\n",
    b"Authorization: Bearer nobody-gave-me-this\r\n",
    b"Authorization: Basic eA==\r\n",
)


def served(monkeypatch: pytest.MonkeyPatch, url: str, ask: Callable[[ServerPair], Awaitable[None]]) -> None:
    async def run() -> None:
        async with server_pair(monkeypatch, url) as both:
            await ask(both)

    uvloop.run(run())


def test_an_id_that_exists_and_one_that_does_not_are_answered_alike_without_a_token(
    monkeypatch: pytest.MonkeyPatch, sqlite_url: str
) -> None:
    async def ask(both: ServerPair) -> None:
        for path in PATHS:
            for wrong in WRONG:
                known, unknown = [
                    await both.agree(
                        f"GET {path.format(name)} HTTP/1.1\r\nHost: r\r\n".encode() + wrong + b"\r\n" + LAST
                    )
                    for name in (KNOWN, UNKNOWN)
                ]
                assert known == unknown, (path, wrong)
                assert known[0].status == 401
                assert b"www-authenticate: bearer" in known[0].headers

    served(monkeypatch, sqlite_url, ask)


def test_what_needs_no_token_tells_of_no_generation(monkeypatch: pytest.MonkeyPatch, sqlite_url: str) -> None:
    async def ask(both: ServerPair) -> None:
        body = event("task_told_to_nobody", event_id="evt_told_to_nobody", prompt=PRIVATE)
        await both.agree(delivery(body=body) + delivery(body=body, sent=body + b" ") + LAST)
        for path in ("/livez", "/readyz", "/metrics", "/openapi.json", "/docs", "/rivya/webhook"):
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{both.ports[0]}", timeout=60) as client:
                answer = await client.get(path)
            text = answer.text + str(answer.headers)
            assert "told_to_nobody" not in text, path
            assert PRIVATE not in text, path
            assert not [secret for secret in (SECRET, API_KEY, ENCRYPTION_KEY, *TOKENS.values()) if secret in text], (
                path
            )

    served(monkeypatch, sqlite_url, ask)


@pytest.mark.parametrize("role", Role)
def test_each_role_reads_by_the_lane_and_no_other_token_does(
    monkeypatch: pytest.MonkeyPatch, sqlite_url: str, role: Role
) -> None:
    token = TOKENS[role]

    async def ask(both: ServerPair) -> None:
        before = len(both.fast.server_state.tasks)
        first, *_ = await both.agree(read(token=token) + LAST)
        assert (first.status, before) == (404 if role.is_fenced else 200, 0)  # it belongs to none of them
        for other in (token[:-1], token + "x", token.upper(), f"{token} {token}", f"{token},"):
            first, *_ = await both.agree(read(token=other) + LAST)
            assert first.status == 401, other

    served(monkeypatch, sqlite_url, ask)


@pytest.mark.parametrize("form", ["json", "console"])
async def test_no_log_line_and_no_error_tells_a_secret_a_token_or_a_body(
    sqlite_url: str, tmp_path: Path, form: str
) -> None:
    port, key_path = free_port(), "a-path-key-that-nobody-else-knows"
    settings = environment(
        "http://127.0.0.1:1", sqlite_url, port, RECEIVER_LOG_FORMAT=form, RIVYA_SIGNING_SECRET=SECRET
    )
    body = event(prompt=PRIVATE)
    answers: list[str] = []
    async with (
        serving(settings, tmp_path, port=port) as process,
        httpx.AsyncClient(base_url=process.url, timeout=60) as client,
    ):
        while (await client.post("/rivya/webhook", content=body)).status_code != 401:
            pass  # until its secret has been read
        signed = dict(sign(parse_scheme("timestamped"), SECRET, body, timestamp=NOON, event_id=""))
        for bearer in (TOKEN, TOKEN[:-1] + "x", f"{TOKEN}x"):
            client.headers["Authorization"] = f"Bearer {bearer}"
            asked = [
                client.get(f"/api/v1/generations/g?wait={TOKEN}"), client.get(f"/api/v1/generations?cursor={TOKEN}"),
                client.put("/api/v1/generations/t", content=body), client.post("/api/v1/generations", content=body),
                client.post("/api/v1/generations", json={"model": "z-image", "prompt": PRIVATE}),
                client.post(f"/rivya/webhook/{key_path}", content=body),
                client.post(f"/rivya/webhook/{key_path}", content=body, headers=signed),
                client.post("/api/v1/endpoint/test"), client.post("/api/v1/endpoint/rotate-secret"),
                client.get("/api/v1/credits"), client.post("/api/v1/chat/completions", content=body),
            ]  # fmt: skip
            answers += [answer.text for answer in await asyncio.gather(*asked) if answer.status_code >= 400]
        process.terminate()
    texts = [process.log(), *answers]
    assert len(answers) > 20
    for secret in (SECRET, SECRET.removeprefix("whsec_"), API_KEY, ENCRYPTION_KEY, TOKEN, PRIVATE, key_path):
        assert not [each for each in texts if secret in each], secret
