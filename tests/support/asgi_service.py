"""The whole service in this process, called without a socket."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from app.core.auth import Role
from app.core.settings import load
from app.main import Service
from app.sandbox.server import serve_sandbox
from tests.support.receivers import environment

TOKENS = {role: f"a-token-of-role-{role}" for role in Role}


@asynccontextmanager
async def serve(monkeypatch: pytest.MonkeyPatch, url: str) -> AsyncIterator[tuple[Service, httpx.AsyncClient]]:
    """The whole service, in front of a sandbox."""
    tokens = ",".join(f"{role}:{role}:{token}" for role, token in TOKENS.items())
    async with serve_sandbox() as rivya:
        for name, value in environment(rivya.base_url, url, 8000, RECEIVER_API_TOKENS=tokens).items():
            monkeypatch.setenv(name, value)
        service = Service(load())
        service.readiness.keep_seconds = 0
        await service.batch.start()
        async with httpx.AsyncClient(transport=httpx.ASGITransport(service.app), base_url="http://receiver") as client:
            yield service, client
        await service.submissions.stop()
        await service.batch.stop()
        await service.close()


def service(monkeypatch: pytest.MonkeyPatch, database_url: str, **changes: str) -> Service:
    for name, value in environment("http://127.0.0.1:1", database_url, 8000, **changes).items():
        monkeypatch.setenv(name, value)
    return Service(load())


async def document(monkeypatch: pytest.MonkeyPatch, database_url: str) -> dict[str, Any]:
    receiver = service(monkeypatch, database_url)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(receiver.app), base_url="http://receiver") as client:
        openapi: dict[str, Any] = (await client.get("/openapi.json")).json()
    await receiver.close()
    return openapi
