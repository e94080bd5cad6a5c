"""GET /api/v1/endpoint: what callers see of the registration, by role, and never a secret."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from starlette.requests import Request

from app.core.auth import Access, ApiToken, Role
from app.core.errors import ServiceError
from app.endpoint.routes import router
from app.endpoint.service import EndpointQueries
from tests.support.registration_harness import SCHEME, RegistrationHarness, Replica, room

TOKENS = {Role.READ: "read-token-0123456789", Role.ADMIN: "admin-token-0123456789"}


async def _in_rivyas_shape(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ServiceError)
    return JSONResponse({"error": {"code": error.code, "message": error.message}}, error.status)


@asynccontextmanager
async def _api(r: RegistrationHarness, replica: Replica) -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI(exception_handlers={ServiceError: _in_rivyas_shape})
    access = Access([ApiToken.of(role, role, token) for role, token in TOKENS.items()])
    app.include_router(router(access, EndpointQueries(replica.database, replica.keyring, clock=r.clock)))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://receiver") as client:
        yield client


async def _get(client: httpx.AsyncClient, role: Role) -> tuple[int, dict[str, Any]]:
    response = await client.get("/api/v1/endpoint", headers={"Authorization": f"Bearer {TOKENS[role]}"})
    return response.status_code, response.json()


async def test_a_reader_sees_the_registration_but_not_its_secret_path(database_url: str) -> None:
    async with room(database_url) as r:
        replica = await r.settle(await r.start())
        row, [endpoint] = await r.row(), r.at_rivya()
        async with _api(r, replica) as client:
            status, body = await _get(client, Role.READ)
        stamp = row["created_at"].isoformat().replace("+00:00", "Z")
        assert status == 200
        assert body == {
            "object": "endpoint",
            "id": row["id"],
            "rivya_id": endpoint.id,
            "url": f"{r.public_url}/rivya/webhook/{row['path_key'][:4]}****",
            "state": "serving",
            "scheme": str(SCHEME),
            "proven_at": None,
            "proven_by": None,
            "other_scheme": None,
            "other_scheme_count": 0,
            "rotation": "none",
            "created_at": stamp,
            "last_verified_at": None,
            "last_refused_at": None,
            "refusals": 0,
            "last_error": None,
            "failure_count": 0,
            "last_success_at": stamp,
            "last_failure_at": None,
            "secret_count": 1,
            "secrets": [{"valid_from": stamp, "valid_until": None, "proven_at": stamp}],
        }


async def test_an_admin_sees_the_whole_url(database_url: str) -> None:
    async with room(database_url) as r:
        replica = await r.start()
        await replica.reconciler.run_once()
        async with _api(r, replica) as client:
            _, body = await _get(client, Role.ADMIN)
        assert body["url"] == (await r.row())["url"]
        assert r.at_rivya()[0].secret not in str(body)


async def test_while_registration_fails_the_reason_is_seen(database_url: str) -> None:
    async with room(database_url) as r:
        replica = await r.start(api_key="rvya_sk_unknown")
        await replica.reconciler.run_once()
        async with _api(r, replica) as client:
            _, body = await _get(client, Role.READ)
        assert (body["state"], body["rivya_id"], body["last_error"]) == ("intended", None, "api_key_invalid")
        assert body["secret_count"] == 0


async def test_before_anything_is_registered_there_is_no_endpoint(database_url: str) -> None:
    async with room(database_url) as r, _api(r, await r.start()) as client:
        status, body = await _get(client, Role.READ)
        assert (status, body["error"]["code"]) == (404, "not_found")


async def test_a_secret_given_by_hand_shows_as_manual(empty_database_url: str) -> None:
    async with room(empty_database_url) as r:
        replica = await r.start(fixed_secret="whsec_given_by_hand")
        async with _api(r, replica) as client:
            status, body = await _get(client, Role.ADMIN)
        assert (status, body["state"], body["secret_count"]) == (200, "manual", 1)
        assert "given_by_hand" not in str(body)


async def test_without_a_token_nothing_is_told(database_url: str) -> None:
    async with room(database_url) as r, _api(r, await r.start()) as client:
        assert (await client.get("/api/v1/endpoint")).status_code == 401


async def test_the_documentation_shows_an_example(database_url: str) -> None:
    async with room(database_url) as r, _api(r, await r.start()) as client:
        schemas = (await client.get("/openapi.json")).json()["components"]["schemas"]
        [example] = schemas["EndpointView"]["examples"]
        assert example.keys() <= schemas["EndpointView"]["properties"].keys()
