"""A relayed call reaches Rivya as it was meant, its answer comes back as it was given, and nothing is paid twice."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import orjson
import pytest

from app.core.auth import Role
from app.gateway.upstream import CallTimeouts, Kind
from app.rivya.errors import RivyaRateLimited
from app.sandbox.faults import ApiFault
from app.sandbox.server import serve_sandbox
from app.sandbox.state import Sandbox
from tests.support.event_loop import pass_time
from tests.support.gateway_harness import KEY, GatewayHarness, open_gateway
from tests.support.scripted_provider import Upstream, answering, scripted

CHAT = "/api/v1/chat/completions"
TURN = {"model": "gpt-5-2-chat", "message": "hello"}
BODY = b'{ "message":"h\\u00e9llo" , "model": "m","unknown":1}'
ERROR = b'{"error":{"code":"odd_new_code","message":"No.","requestId":"req_1","more":[1.0]}}'


def code_of(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


async def heard(upstream: Upstream, *, path: str = CHAT, **headers: str) -> dict[str, str]:
    """The headers in which a turn arrives at Rivya."""
    async with open_gateway(upstream.url) as room:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        await room.client.post(path, content=BODY, headers={"Content-Type": "application/json", **named})
    return dict(upstream.heard[-1].headers)


async def test_the_body_and_the_query_arrive_byte_for_byte() -> None:
    async with scripted(answering(b"{}")) as rivya:
        await heard(rivya, path=f"{CHAT}?a=%2F&b=+x&a=")
        [request] = rivya.heard
        assert (request.method, request.target) == ("POST", f"{CHAT}?a=%2F&b=+x&a=")
        assert request.body == BODY


async def test_a_body_that_no_reading_has_is_left_behind_with_its_length() -> None:
    async with scripted(answering(b"{}")) as rivya, open_gateway(rivya.url) as room:
        for path in ("/api/v1/chat/sessions", "/api/v1/credits"):
            assert (await room.client.request("GET", path, content=b"unasked")).status_code == 200
        assert [(heard.body, heard.header("content-length")) for heard in rivya.heard] == [(b"", None)] * 2


async def test_keys_and_traces_are_forwarded_and_nothing_that_rivya_does_not_need() -> None:
    async with scripted(answering(b"{}")) as rivya:
        arrived = await heard(rivya, Idempotency_Key="k-1", X_Api_Key="theirs", User_Agent="sdk/1", Traceparent="00-1")
        assert (arrived["idempotency-key"], arrived["traceparent"]) == ("k-1", "00-1")
        assert "x-api-key" not in arrived
        assert arrived["user-agent"] == "sdk/1"
        assert arrived["content-type"] == "application/json"


async def test_our_token_cookies_and_what_belongs_to_one_hop_stay_here() -> None:
    async with scripted(answering(b"{}")) as rivya:
        arrived = await heard(
            rivya, Cookie="a=b", TE="trailers", Connection="keep-alive, X-Hop", X_Hop="1", X_Forwarded_For="10.0.0.1"
        )
        assert arrived["authorization"] == f"Bearer {KEY}"
        assert not {"cookie", "te", "x-hop", "x-forwarded-for"} & set(arrived)
        assert not [value for value in arrived.values() if "a-token-of-role" in value]


async def test_a_cookie_of_rivyas_reaches_no_caller_and_never_goes_back() -> None:
    async with scripted(answering(b"{}", Set_Cookie="session=1; Path=/")) as rivya, open_gateway(rivya.url) as room:
        answer = await room.client.post(CHAT, content=BODY)
        await room.client.post(CHAT, content=BODY)
        assert "set-cookie" not in answer.headers
        assert rivya.heard[1].header("cookie") is None


async def test_a_refusal_comes_back_byte_for_byte_whatever_its_code() -> None:
    async with (
        scripted(answering(ERROR, status="418 Teapot", X_Request_Id="req_1")) as rivya,
        open_gateway(rivya.url) as room,
    ):
        answer = await room.client.post(CHAT, content=BODY)
        assert (answer.status_code, answer.content) == (418, ERROR)
        assert answer.headers["x-rivya-request-id"] == "req_1"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 099 Low\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 101 Switching\r\nUpgrade: h2c\r\n\r\n",
        b"HTTP/1.1 600 High\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 999 Higher\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 404 No\r\nContent-Encoding: br\r\nContent-Length: 2\r\n\r\n{}",
        b"nonsense\r\n\r\n",
    ],
)
@pytest.mark.parametrize("path", [f"{CHAT}/stream", "/api/v1/files/file_1"])
async def test_an_answer_that_breaks_the_rules_is_unreadable(answer: bytes, path: str) -> None:
    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()

    async with scripted(script) as rivya, open_gateway(rivya.url) as room:
        method = "POST" if path.startswith(CHAT) else "GET"
        assert code_of(await room.client.request(method, path, content=BODY)) == (502, "rivya_unreadable")


@pytest.mark.parametrize(("status", "code"), [("200 OK", 502), ("302 Found", 502), ("403 No", 403)])
async def test_one_model_is_never_something_else(status: str, code: int) -> None:
    body = b'{"id":"m","status":"succeeded"}' if code == 502 else ERROR
    async with scripted(answering(body, status=status)) as rivya, open_gateway(rivya.url) as room:
        assert (await room.client.get("/api/v1/models/m")).status_code == code


@pytest.mark.parametrize("body", [b'{"id":"file_2"}', b'{"file_id":"file_2","url":"x"}', b'{"id":"a","file_id":"b"}'])
async def test_an_answer_about_another_file_is_unreadable(body: bytes) -> None:
    async with scripted(answering(body)) as rivya, open_gateway(rivya.url) as room:
        assert code_of(await room.client.get("/api/v1/files/file_1")) == (502, "rivya_unreadable")


@pytest.mark.parametrize("body", [b'{"id":"a","file_id":"file_1"}', b'{"url":"x"}', b"[]", b"no JSON", b'{"id":7}'])
async def test_an_answer_that_names_no_other_file_passes(body: bytes) -> None:
    async with scripted(answering(body)) as rivya, open_gateway(rivya.url) as room:
        assert (await room.client.get("/api/v1/files/file_1")).content == body


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
async def test_an_answer_without_a_body_may_promise_one(status: str) -> None:
    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 5\r\n\r\n".encode())
        await writer.drain()

    async with scripted(script) as rivya, open_gateway(rivya.url) as room:
        for path in ("/api/v1/chat/sessions", "/api/v1/credits"):
            answer = await room.client.get(path)
            assert (answer.status_code, answer.content) == (int(status[:3]), b"")


async def test_our_key_reaches_no_caller_in_an_answer_of_rivyas_however_it_is_split() -> None:
    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 400 Bad\r\nX-Request-Id: {KEY}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        for byte in f'{{"sent":"Bearer {KEY}","rest":"{KEY[:8]}"}}'.encode():
            writer.write(b"1\r\n%c\r\n" % byte)
            await writer.drain()
        writer.write(b"0\r\n\r\n")

    async with scripted(script) as rivya, open_gateway(rivya.url) as room:
        answer = await room.client.post(CHAT, content=BODY)
        assert answer.json() == {"sent": f"Bearer {'*' * len(KEY)}", "rest": KEY[:8]}
        assert answer.headers["x-rivya-request-id"] == "*" * len(KEY)


async def test_a_redirect_is_not_followed() -> None:
    async with scripted(answering(b"", status="302 Found", Location="/x")) as rivya, open_gateway(rivya.url) as room:
        assert (await room.client.get("/api/v1/chat/sessions")).status_code == 302
        assert len(rivya.heard) == 1


@pytest.mark.parametrize("identity", ["..", "%2E%2E", "a%00b"])
async def test_an_id_cannot_climb_out_of_its_path(identity: str) -> None:
    async with scripted(answering(b"{}")) as rivya, open_gateway(rivya.url) as room:
        url = httpx.URL(room.url).copy_with(raw_path=f"/api/v1/files/{identity}".encode())
        assert code_of(await room.client.get(url)) == (404, "not_found")
        assert rivya.heard == []


async def spoiled(fault: ApiFault, *, key: str | None = "k") -> tuple[httpx.Response, GatewayHarness, dict[str, int]]:
    """A turn while Rivya suffers from the fault; the answer, and how often each key was charged."""
    headers = {} if key is None else {"Idempotency-Key": key}
    async with serve_sandbox() as rivya, open_gateway(rivya.base_url) as room:
        rivya.sandbox.faults.api = [fault]
        answer = await room.client.post(CHAT, json=TURN, headers=headers)
        charges = {name: charge["times"] for name, charge in rivya.sandbox.accounts.charges_by_key().items()}
        return answer, room, charges


@pytest.mark.parametrize(
    "fault",
    [
        ApiFault("chat.complete", status=500, when="after", times=2),
        ApiFault("chat.complete", connection="reset", when="after", times=2),
        ApiFault("chat.complete", status=429, times=2),
        ApiFault("chat.complete", status=502, body="garbage", times=1),
    ],
)
async def test_with_a_key_a_turn_is_sent_again_and_paid_once(fault: ApiFault) -> None:
    times = fault.times
    answer, room, charges = await spoiled(fault)
    assert answer.json()["object"] == "chat.completion"
    assert len(room.pauses) == times
    assert charges == {"k": 1}


async def test_without_a_key_a_turn_that_may_have_been_paid_is_not_sent_again() -> None:
    answer, room, charges = await spoiled(ApiFault("chat.complete", connection="reset", when="after"), key=None)
    assert code_of(answer) == (504, "rivya_no_answer")
    assert (room.pauses, charges) == ([], {"": 1})


async def test_without_a_key_a_server_error_is_handed_on() -> None:
    answer, room, _ = await spoiled(ApiFault("chat.complete", status=500), key=None)
    assert code_of(answer) == (500, "internal_error")
    assert room.pauses == []


async def test_a_reading_is_sent_again_without_any_key() -> None:
    async with serve_sandbox() as rivya, open_gateway(rivya.base_url) as room:
        rivya.sandbox.faults.api = [ApiFault("chat.sessions", connection="reset", times=1)]
        assert (await room.client.get("/api/v1/chat/sessions")).status_code == 200


async def test_the_last_failure_is_handed_on_as_it_came() -> None:
    answer, room, _ = await spoiled(ApiFault("chat.complete", status=503, retry_after=1))
    assert code_of(answer) == (503, "public_api_disabled")
    assert answer.headers["retry-after"] == "1"
    assert room.pauses == [1.0, 1.0]


async def test_a_long_retry_after_is_the_callers_to_wait_for_and_pauses_our_own_calls() -> None:
    answer, room, _ = await spoiled(ApiFault("chat.complete", status=429, retry_after=30))
    assert (code_of(answer), answer.headers["retry-after"]) == ((429, "rate_limited"), "30")
    assert room.pauses == []
    [noted] = room.noted
    assert isinstance(noted, RivyaRateLimited)
    assert noted.retry_after == 30


async def test_a_rivya_that_is_away_is_told_as_such_and_nothing_was_sent() -> None:
    async with open_gateway("http://127.0.0.1:1") as room:
        answer = await room.client.post(CHAT, json=TURN)
        assert code_of(answer) == (503, "rivya_unreachable")
        assert int(answer.headers["retry-after"]) > 0
        assert len(room.pauses) == 2


async def test_a_rivya_that_hangs_is_given_up_on_in_time() -> None:
    async with serve_sandbox() as rivya:
        timeouts = {Kind.READ: CallTimeouts(answer=10, silence=15)}
        async with open_gateway(rivya.base_url, timeouts=timeouts) as room:
            rivya.sandbox.faults.api = [ApiFault("credits.get", hang=60)]
            asking = asyncio.ensure_future(room.client.get("/api/v1/credits"))
            while not rivya.sandbox.calls.counts["credits.get"]:
                await asyncio.sleep(0)
            pass_time(10)
            assert code_of(await asking) == (504, "rivya_no_answer")


async def test_a_body_larger_than_a_turn_can_be_is_refused_before_rivya_hears_of_it() -> None:
    async with scripted(answering(b"{}")) as rivya, open_gateway(rivya.url) as room:
        for content in (bytes(1024 * 1024 + 1), _pieces()):
            assert code_of(await room.client.post(CHAT, content=content)) == (413, "payload_too_large")
        assert rivya.heard == []


async def _pieces() -> AsyncIterator[bytes]:
    for _ in range(20):
        yield bytes(64 * 1024)


async def test_when_all_slots_are_taken_a_call_is_told_to_come_back_and_the_next_one_is_served() -> None:
    async with serve_sandbox(Sandbox(manual=True)) as rivya, open_gateway(rivya.base_url, concurrency=2) as room:
        rivya.sandbox.faults.api = [ApiFault("chat.complete", hang=1, times=2)]
        turns = [asyncio.ensure_future(room.client.post(CHAT, json=TURN)) for _ in range(2)]
        while rivya.sandbox.calls.counts["chat.complete"] < 2:
            await asyncio.sleep(0)
        refused = await room.client.get("/api/v1/credits")
        await rivya.sandbox.advance(1)
        assert (code_of(refused), refused.headers["retry-after"]) == ((503, "overloaded"), "1")
        assert {answer.status_code for answer in await asyncio.gather(*turns)} == {200}
        assert (await room.client.get("/api/v1/credits")).status_code == 200


async def test_a_token_with_all_of_its_slots_taken_leaves_those_of_the_others_free() -> None:
    sandbox = Sandbox(manual=True)
    async with serve_sandbox(sandbox) as rivya, open_gateway(rivya.base_url, concurrency=2, is_shared=True) as room:
        sandbox.faults.api = [ApiFault("chat.complete", hang=1)]
        turn = asyncio.ensure_future(room.client.post(CHAT, json=TURN))
        while sandbox.calls.counts["chat.complete"] < 1:
            await asyncio.sleep(0)
        assert code_of(await room.client.post(CHAT, json=TURN)) == (503, "overloaded")
        assert (await room.clients[Role.READ].get("/api/v1/credits")).status_code == 200
        await sandbox.advance(1)
        assert (await turn).status_code == 200


async def test_a_turn_holds_no_slot_while_its_body_is_still_to_come() -> None:
    has_begun, is_over = asyncio.Event(), asyncio.Event()

    async def dripping() -> AsyncIterator[bytes]:
        yield b"{"
        has_begun.set()
        await is_over.wait()
        yield b"}"

    async with serve_sandbox() as rivya, open_gateway(rivya.base_url, concurrency=1) as room:
        turn = asyncio.ensure_future(room.client.post(CHAT, content=dripping()))
        await has_begun.wait()
        assert (await room.clients[Role.READ].get("/api/v1/credits")).status_code == 200
        is_over.set()
        assert code_of(await turn) == (400, "validation_failed")


@pytest.mark.parametrize("path", [CHAT, "/api/v1/files"])
async def test_a_body_that_comes_too_slowly_is_answered_408(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.core.bodies.SECONDS", 0.05)
    async with serve_sandbox() as rivya, open_gateway(rivya.base_url) as room:
        host, port = room.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        token = room.client.headers["Authorization"]
        writer.write(
            f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\nContent-Length: 9\r\n\r\n{{".encode()
        )
        assert (await reader.readline()).startswith(b"HTTP/1.1 408 ")
        writer.close()
        await writer.wait_closed()
        assert room.gateway.limit.in_use == 0


async def test_a_refused_call_gives_its_slot_back() -> None:
    async with serve_sandbox() as rivya, open_gateway(rivya.base_url, concurrency=1) as room:
        for _ in range(3):
            answer = await room.client.post(CHAT, json={})
            assert code_of(answer) == (400, "validation_failed")
        assert orjson.loads((await room.client.post(CHAT, json=TURN)).content)["object"] == "chat.completion"
