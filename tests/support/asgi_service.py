"""The whole service in this process, called without a socket."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from app.core.auth import Role
from app.core.settings import load
from app.main import Service
from app.sandbox.server import serve_sandbox
from tests.support.receivers import environment

TOKENS = {role: f"a-token-of-role-{role}" for role in Role}


@asynccontextmanager
async def serve(url: str, **changes: str) -> AsyncIterator[tuple[Service, httpx.AsyncClient]]:
    """The whole service, in front of a sandbox. `changes` are settings."""
    tokens = ",".join(f"{role}:{role}:{token}" for role, token in TOKENS.items())
    async with serve_sandbox() as rivya:
        service = make_service(url, rivya.base_url, RECEIVER_API_TOKENS=tokens, **changes)
        service.readiness.keep_seconds = 0
        await service.batch.start()
        async with httpx.AsyncClient(transport=httpx.ASGITransport(service.app), base_url="http://receiver") as client:
            yield service, client
        await service.submissions.stop()
        await service.batch.stop()
        await service.close()


def make_service(database_url: str, rivya_url: str = "http://127.0.0.1:1", **changes: str) -> Service:
    """One whose loops do not run. `changes` are settings."""
    given = environment(rivya_url, database_url, 8000, **changes)
    return Service(load(**{name.lower(): value for name, value in given.items()}))


async def document(database_url: str) -> dict[str, Any]:
    """The OpenAPI document."""
    receiver = make_service(database_url)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(receiver.app), base_url="http://receiver") as client:
        openapi: dict[str, Any] = (await client.get("/openapi.json")).json()
    await receiver.close()
    return openapi
