"""Somebody at the console, over HTTP: signs in, follows links, sends forms as a browser does."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from tests.support.receivers import TOKEN
from tests.support.service_harness import ServiceHarness

ORIGIN = "http://127.0.0.1:8000"
LOGIN = "/console/login"
CSRF = re.compile(r'name="csrf" value="([0-9a-f]{64})"')


class Visitor(httpx.AsyncClient):
    """A browser without scripts: keeps cookies, follows no redirects, sends `Origin` with forms."""

    async def send_form(self, page: str, action: str, **options: Any) -> httpx.Response:
        """Open `page`, then send its CSRF token and these `data` to `action`."""
        csrf = CSRF.search((await self.get(page)).text)
        assert csrf is not None, page
        data = {"csrf": csrf[1], **options.pop("data", {})}
        headers = {"Origin": ORIGIN, **options.pop("headers", {})}
        return await self.post(action, data=data, headers=headers, **options)

    async def sign_in(self, token: str = TOKEN, path: str = LOGIN) -> httpx.Response:
        return await self.send_form(path, path, data={"token": token})


@asynccontextmanager
async def visiting(
    room: ServiceHarness, token: str | None = TOKEN, *, address: str = "192.0.2.1"
) -> AsyncIterator[Visitor]:
    """A visitor at this address, who is signed in unless there is no token."""
    transport = httpx.ASGITransport(room.service.app, client=(address, 50_000))
    async with Visitor(transport=transport, base_url=ORIGIN) as visitor:
        if token is not None:
            answer = await visitor.sign_in(token)
            assert answer.status_code == 303, answer.text
        yield visitor
