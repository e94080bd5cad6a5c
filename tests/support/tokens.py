"""Calls with managed tokens, on a service of this process."""

from typing import Any

import httpx

from tests.support.receivers import TOKEN
from tests.support.service_harness import ServiceHarness

TOKENS = "/api/v1/tokens"


async def call(room: ServiceHarness, method: str, path: str, token: str = TOKEN, **options: Any) -> httpx.Response:
    return await room.client.request(method, path, headers={"Authorization": f"Bearer {token}"}, **options)


async def create(room: ServiceHarness, name: str = "shop", role: str = "write", **members: Any) -> str:
    answer = await call(room, "POST", TOKENS, json={"name": name, "role": role, **members})
    assert answer.status_code == 201, answer.text
    secret: str = answer.json()["token"]
    return secret
