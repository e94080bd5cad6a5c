"""The client against a server that answers as Rivya's documentation says."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

import orjson
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.rivya.client import RivyaClient
from app.rivya.errors import RivyaNotFound, RivyaUnauthorized, RivyaUnreadable
from tests.support.ports import free_port

KEY = "rvya_sk_test_0123456789"
GENERATION = {"id": "task_1", "status": "queued", "model": "z-image"}
ENDPOINT = {"id": "whend_1", "url": "https://example.com/rivya/webhook", "status": "active"}
WITH_SECRET = {**ENDPOINT, "signing_secret": "whsec_abc"}


class Provider:
    """Answers every request with what was put in, and remembers the requests."""

    def __init__(self) -> None:
        self.answer = Response(b"{}")
        self.methods: list[str] = []
        self.targets: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.bodies: list[bytes] = []

    def answers(self, value: Any, status: int = 200, **headers: str) -> None:
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        self.answer = Response(orjson.dumps(value), status, named, media_type="application/json")

    async def __call__(self, request: Request) -> Response:
        self.methods.append(request.method)
        self.targets.append(request.scope["raw_path"].decode())
        self.headers.append(dict(request.headers))
        self.bodies.append(await request.body())
        return self.answer

    @property
    def call(self) -> tuple[str, str]:
        """The last request's method and path."""
        return self.methods[-1], self.targets[-1]


@asynccontextmanager
async def serving(provider: Provider) -> AsyncIterator[str]:
    routes = [Route("/{path:path}", provider.__call__, methods=["GET", "POST", "PATCH", "DELETE"])]
    port = free_port()
    config = uvicorn.Config(Starlette(routes=routes), port=port, log_config=None, ws="none", lifespan="off")
    server = uvicorn.Server(config)
    task = asyncio.ensure_future(server._serve())
    while not server.started:
        await asyncio.sleep(0)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    await task


@pytest.fixture
async def provider() -> Provider:
    return Provider()


@pytest.fixture
async def client(provider: Provider) -> AsyncIterator[RivyaClient]:
    async with serving(provider) as url, RivyaClient(url, KEY) as client:
        yield client


async def test_every_request_carries_the_key_and_says_who_asks(provider: Provider, client: RivyaClient) -> None:
    provider.answers(GENERATION)
    await client.get_generation("task_1")
    assert provider.headers[0]["authorization"] == f"Bearer {KEY}"
    assert provider.headers[0]["user-agent"] == f"rivya-receiver/{version('rivya-receiver')}"


async def test_a_status_is_asked_for_at_the_documented_path(provider: Provider, client: RivyaClient) -> None:
    provider.answers(GENERATION)
    generation = await client.get_generation("task_1")
    assert provider.call == ("GET", "/api/v1/generations/task_1")
    assert generation.object == GENERATION


async def test_an_id_stays_one_path_segment_whatever_is_in_it(provider: Provider, client: RivyaClient) -> None:
    provider.answers({**GENERATION, "id": "a/../b?c=d#e %2F;ü"})
    await client.get_generation("a/../b?c=d#e %2F;ü")
    assert provider.call[1] == "/api/v1/generations/a%2F..%2Fb%3Fc%3Dd%23e%20%252F%3B%C3%BC"


@pytest.mark.parametrize("identity", ["", ".", "..", " ", "a\x00", "\ud800", "x" * 501])
async def test_what_cannot_be_an_id_is_not_found_without_asking(
    provider: Provider, client: RivyaClient, identity: str
) -> None:
    with pytest.raises(RivyaNotFound):
        await client.get_generation(identity)
    assert provider.methods == []


async def test_a_create_is_forwarded_byte_for_byte_with_its_key(provider: Provider, client: RivyaClient) -> None:
    provider.answers(GENERATION, 202)
    body = b'{ "model":"z-image" }'
    answer = await client.create_generation(body, idempotency_key="key 1")
    assert provider.call == ("POST", "/api/v1/generations")
    assert provider.bodies == [body]
    assert provider.headers[0]["idempotency-key"] == "key 1"
    assert provider.headers[0]["content-type"] == "application/json"
    assert (answer.status, answer.generation.id, orjson.loads(answer.body)) == (202, "task_1", GENERATION)


@pytest.mark.parametrize("key", ["", "k" * 256, "kéy", " k", "k\r\nx: y"])
async def test_a_key_that_is_no_header_value_is_refused_before_sending(
    provider: Provider, client: RivyaClient, key: str
) -> None:
    with pytest.raises(ValueError, match="printable ASCII"):
        await client.create_generation(b"{}", idempotency_key=key)
    assert provider.methods == []


async def test_an_endpoint_is_made_with_its_secret(provider: Provider, client: RivyaClient) -> None:
    provider.answers(WITH_SECRET, 201)
    created = await client.create_endpoint("Receiver", ENDPOINT["url"], ["generation.succeeded"])
    assert provider.call == ("POST", "/api/v1/webhooks")
    assert orjson.loads(provider.bodies[0]) == {
        "name": "Receiver",
        "url": ENDPOINT["url"],
        "event_types": ["generation.succeeded"],
    }
    assert (created.id, created.secret) == ("whend_1", "whsec_abc")


async def test_an_endpoint_made_without_showing_its_secret_is_unreadable(
    provider: Provider, client: RivyaClient
) -> None:
    provider.answers(ENDPOINT)
    with pytest.raises(RivyaUnreadable):
        await client.create_endpoint("Receiver", ENDPOINT["url"], [])


async def test_a_rotation_answers_with_the_new_secret(provider: Provider, client: RivyaClient) -> None:
    provider.answers(WITH_SECRET)
    assert (await client.rotate_endpoint_secret("whend_1")).secret == "whsec_abc"
    assert provider.call == ("POST", "/api/v1/webhooks/whend_1/rotate-secret")
    provider.answers(ENDPOINT)
    with pytest.raises(RivyaUnreadable):
        await client.rotate_endpoint_secret("whend_1")


async def test_endpoints_are_listed_read_changed_tested_and_removed(provider: Provider, client: RivyaClient) -> None:
    provider.answers({"object": "list", "data": [ENDPOINT]})
    assert (await client.list_endpoints()).endpoints[0].id == "whend_1"
    assert provider.call == ("GET", "/api/v1/webhooks")
    provider.answers(ENDPOINT)
    assert (await client.get_endpoint("whend_1")).status == "active"
    assert provider.call == ("GET", "/api/v1/webhooks/whend_1")
    changed = await client.update_endpoint("whend_1", status="disabled")
    assert changed is not None
    assert provider.call == ("PATCH", "/api/v1/webhooks/whend_1")
    assert provider.bodies[-1] == b'{"status":"disabled"}'
    await client.test_endpoint("whend_1")
    assert provider.call == ("POST", "/api/v1/webhooks/whend_1/test")
    await client.delete_endpoint("whend_1")
    assert provider.call == ("DELETE", "/api/v1/webhooks/whend_1")


async def test_a_change_answered_without_an_endpoint_was_made_all_the_same(
    provider: Provider, client: RivyaClient
) -> None:
    provider.answer = Response(status_code=204)
    assert await client.update_endpoint("whend_1", name="x") is None


async def test_models_are_read(provider: Provider, client: RivyaClient) -> None:
    provider.answers({"object": "list", "data": [{"id": "z-image", "category": "image"}]})
    assert await client.models() == {"z-image": "image"}
    assert provider.call == ("GET", "/api/v1/models")


async def test_the_key_shows_in_no_text(provider: Provider, client: RivyaClient) -> None:
    provider.answers({"error": {"code": "api_key_invalid", "message": KEY, "requestId": "req_1"}}, 401)
    with pytest.raises(RivyaUnauthorized) as refusal:
        await client.get_generation("task_1")
    assert KEY not in repr(client) + repr(vars(client)) + str(refusal.value) + repr(refusal.value)
