"""What proxies in front of us need: HEAD, waits within their time-out, kept connections, true addresses."""

import asyncio

import httpx
import pytest

from app.cli.server import make_server
from app.core.settings import load
from app.main import Service
from tests.support.api_harness import open_api
from tests.support.http_paths import HttpPath, on_both_paths
from tests.support.intake_harness import event, open_intake
from tests.support.receivers import environment
from tests.support.reports import submit
from tests.support.service_harness import open_service

PROXY, CLIENT = "127.0.0.1", "203.0.113.9"


async def test_head_is_answered_wherever_get_is(sqlite_url: str) -> None:
    async with open_service(sqlite_url) as room:
        for path, methods in room.service.app.openapi()["paths"].items():
            if "get" in methods:
                got, head = await room.client.get(path), await room.client.head(path)
                assert head.status_code == got.status_code, path
                assert head.headers["content-type"] == got.headers["content-type"], path
        assert (await room.client.head("/livez")).status_code == 200
        refused = await room.client.put("/readyz")
        assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")


@on_both_paths
async def test_the_answer_to_head_has_no_body(sqlite_url: str, http: HttpPath) -> None:
    async with open_api(sqlite_url, http=http) as api:
        await api.record(submit("g"))
        answers = [await api.client.request("HEAD", path) for path in ("/livez", "/api/v1/generations/g", "/livez")]
        assert [(answer.status_code, answer.content) for answer in answers] == [(200, b"")] * 3


@pytest.mark.parametrize("headers", [{}, {"Prefer": "respond-async"}], ids=["fast", "documented"])
@on_both_paths
async def test_a_longer_wait_is_taken_and_answered_at_the_limit(
    sqlite_url: str, http: HttpPath, headers: dict[str, str]
) -> None:
    async with open_api(sqlite_url, http=http) as api:
        await api.record(submit("g"))
        api.waiting.max_seconds = 0.05
        async with asyncio.timeout(10):
            for seconds in ("60", "999999999"):
                answer = await api.client.get("/api/v1/generations/g", params={"wait": seconds}, headers=headers)
                assert (answer.status_code, answer.json()["status"]) == (200, "queued")
        assert api.waiters() == 0


async def test_connections_are_kept_longer_than_balancers_keep_theirs(sqlite_url: str) -> None:
    for changes, seconds in (({}, 75), ({"receiver_keep_alive": "20"}, 20)):
        given = {name.lower(): value for name, value in environment("http://127.0.0.1:9", sqlite_url, 1).items()}
        service = Service(load(**given, **changes))
        assert make_server(service).config.timeout_keep_alive == seconds
        await service.close()


@pytest.mark.parametrize(
    ("trusted", "forwarded", "address"),
    [
        ("", CLIENT, PROXY),
        (PROXY, "", PROXY),
        (PROXY, f"198.51.100.1, {CLIENT}", CLIENT),
        ("127.0.0.0/8,10.0.0.0/8", f"198.51.100.1,{CLIENT}, 10.1.2.3", CLIENT),
        (PROXY, f"{CLIENT}:49152", CLIENT),
        (PROXY, "[2001:db8::1]:49152", "2001:db8::1"),
        ("127.0.0.1,2001:db8::/32", f"{CLIENT}, 2001:DB8::1", CLIENT),
        ("127.0.0.1,10.0.0.1", f"{CLIENT}, ::ffff:10.0.0.1", CLIENT),
        (PROXY, f"{CLIENT}, unknown", PROXY),
        ("0.0.0.0/0", f"198.51.100.1, {CLIENT}", "198.51.100.1"),
    ],
)
async def test_the_address_of_the_client_is_the_last_that_no_trusted_proxy_has(
    sqlite_url: str, trusted: str, forwarded: str, address: str
) -> None:
    async with open_intake(sqlite_url, trusted_proxies=trusted) as room:
        headers = {"X-Forwarded-For": forwarded} if forwarded else {}
        answer: httpx.Response = await room.client.post("/rivya/webhook", content=event(), headers=headers)
        assert answer.status_code == 401
        await room.refusals.run_once()
        [rejection] = await room.refusals.newest(1)
        assert rejection["remote_address"] == address
