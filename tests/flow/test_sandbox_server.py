"""The served sandbox runs in real time unless it is manual, and stops with nothing left behind."""

import asyncio
import socket
from urllib.parse import urlsplit

import httpx
import pytest

from app.sandbox.faults import ApiFault
from app.sandbox.server import serve_sandbox
from app.sandbox.settings import SandboxSettings
from app.sandbox.state import Sandbox
from tests.support.ports import free_port

HEADERS = {"Authorization": "Bearer rvya_sk_sandbox"}


def client_of(base_url: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=base_url, headers=HEADERS, trust_env=False)


async def test_generations_settle_by_themselves_as_fast_as_set() -> None:
    sandbox = Sandbox(settings=SandboxSettings(speed=10_000))
    async with serve_sandbox(sandbox) as rivya, client_of(rivya.base_url) as client:
        ends = {"sandbox-video": "succeeded", "z-image": "failed"}
        for model, end in ends.items():
            body = {"model": model, "params": {"sandbox": {"fail": end == "failed"}}}
            await client.post("/api/v1/generations", json=body)
        await sandbox.scheduler.drain()
        assert {row["model"]: row["status"] for row in sandbox.state()["generations"]} == ends


async def test_a_retry_comes_by_itself() -> None:
    sandbox = Sandbox(settings=SandboxSettings(speed=10_000, retry_delays=(0.001, 0.001)))
    async with serve_sandbox(sandbox) as rivya, client_of(rivya.base_url) as client:
        # The sandbox's own API answers a delivery 401, which is as good a failure as any.
        url = f"{rivya.base_url}/api/v1/generations"
        await client.post("/api/v1/webhooks", json={"name": "self", "url": url})
        await client.post("/api/v1/generations", json={"model": "z-image"})
        await sandbox.scheduler.drain()
        delivery = sandbox.state()["deliveries"][0]
        assert [attempt["response_status"] for attempt in delivery["attempts"]] == [401, 401, 401]


async def test_real_time_can_not_be_advanced() -> None:
    with pytest.raises(RuntimeError, match="manual"):
        await Sandbox().advance(1)


async def test_a_stopped_server_leaves_no_task_and_no_port() -> None:
    before, port = asyncio.all_tasks(), free_port()
    async with serve_sandbox(port=port) as rivya, client_of(rivya.base_url) as client:
        await client.post("/api/v1/generations", json={"model": "sandbox-video-long"})
        rivya.sandbox.faults.api = [ApiFault("credits.get", hang=3600)]
        with pytest.raises(httpx.ReadTimeout):
            await client.get("/api/v1/credits", timeout=httpx.Timeout(10, read=0.02))
    assert asyncio.all_tasks() == before
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


async def test_a_caller_who_leaves_in_mid_body_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    async with serve_sandbox() as rivya:
        _, writer = await asyncio.open_connection("127.0.0.1", urlsplit(rivya.base_url).port)
        head = f"POST /api/v1/generations HTTP/1.1\r\nhost: rivya\r\nauthorization: {HEADERS['Authorization']}\r\n"
        writer.write(f"{head}content-length: 100\r\n\r\n{{".encode())
        async with asyncio.timeout(10):
            while not rivya.sandbox.calls.recent:
                await asyncio.sleep(0)
        writer.close()
    assert [called.status for called in rivya.sandbox.calls.recent] == [None]
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_a_manual_sandbox_goes_on_where_it_was_when_it_is_served_again() -> None:
    sandbox, port = Sandbox(manual=True), free_port()
    async with serve_sandbox(sandbox, port=port) as rivya, client_of(rivya.base_url) as client:
        body = {"model": "z-image", "params": {"sandbox": {"seconds": 5}}}
        path = "/api/v1/generations/" + (await client.post("/api/v1/generations", json=body)).json()["id"]
    async with serve_sandbox(sandbox, port=port) as again, client_of(again.base_url) as client:
        assert again.base_url == rivya.base_url
        await sandbox.advance(5)
        assert (await client.get(path)).json()["status"] == "succeeded"


async def test_a_port_that_is_taken_is_an_error_and_leaves_no_socket_open() -> None:
    async with serve_sandbox() as rivya:
        port = urlsplit(rivya.base_url).port or 0
        with pytest.raises(OSError, match="in use"):
            async with serve_sandbox(port=port):
                pass


async def test_two_sandboxes_know_nothing_of_each_other() -> None:
    async with serve_sandbox(key="rvya_sk_one") as one, serve_sandbox() as two:
        headers = {"Authorization": "Bearer rvya_sk_one"}
        async with httpx.AsyncClient(headers=headers, trust_env=False) as client:
            assert (await client.get(f"{one.base_url}/api/v1/credits")).status_code == 200
            assert (await client.get(f"{two.base_url}/api/v1/credits")).status_code == 401


async def test_a_sandbox_forgets_its_oldest_entries() -> None:
    sandbox = Sandbox(manual=True, keep=3)
    async with serve_sandbox(sandbox) as rivya, client_of(rivya.base_url) as client:
        created = [(await client.post("/api/v1/generations", json={"model": "z-image"})).json()["id"] for _ in range(5)]
        state = sandbox.state()
        assert [row["id"] for row in state["generations"]] == created[2:]
        assert state["calls"]["generations.create"]["count"] == 5
        assert len(state["calls"]["generations.create"]["recent"]) == 3
