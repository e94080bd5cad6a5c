"""`make screenshots`: the console with a made-up record, into docs/images."""

import asyncio
import sys
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from playwright.async_api import Page

from app.core.migrations import migrate
from app.sandbox.server import serve_sandbox
from tests.support.browser import Scheme, open_browser, open_context, sign_in
from tests.support.deployment import ROOT
from tests.support.made_up_record import NEWEST_ID, MadeUpRecord, make_up_record
from tests.support.receivers import TOKEN, Receiver, receiver
from tests.support.sandbox_harness import open_inbox

IMAGES: Final = ROOT / "docs" / "images"
_TOKENS: Final[tuple[dict[str, Any], ...]] = (
    {"name": "storefront", "role": "write-own", "credits_per_day": 500, "rate": 60},
    {"name": "studio", "role": "write", "credits_per_month": 20_000},
    {"name": "newsletter", "role": "write-own", "credits_per_day": 50, "models": ["z-image"]},
    {"name": "dashboard", "role": "read"},
)


@dataclass(frozen=True)
class Screenshot:
    name: str
    path: str
    scheme: Scheme = "light"
    width: int = 1280
    height: int = 860


SCREENSHOTS: Final = (
    Screenshot("overview", "/console?range=day"),
    Screenshot("overview-dark", "/console?range=week", "dark"),
    Screenshot("generations", "/console/generations"),
    Screenshot("gallery", "/console/generations?view=gallery&limit=24"),
    Screenshot("generation", f"/console/generations/{NEWEST_ID}"),
    Screenshot("generation-phone", f"/console/generations/{NEWEST_ID}", "dark", width=390, height=844),
    Screenshot("deliveries", "/console/deliveries"),
    Screenshot("refusals", "/console/refusals"),
    Screenshot("endpoint", "/console/endpoint"),
    Screenshot("webhooks", "/console/webhooks"),
    Screenshot("usage", "/console/usage"),
    Screenshot("tokens", "/console/tokens"),
)


async def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = f"sqlite+aiosqlite:///{directory}/record.db"
        await migrate(url)
        await make_up_record(url, MadeUpRecord(datetime.now(UTC), count=500, is_hostile=False))
        rivya = await stack.enter_async_context(serve_sandbox())
        settings = {"RECEIVER_API_TOKENS": f"ops:admin:{TOKEN}", "RECEIVER_NOTIFY_ALLOW": "127.0.0.1"}
        service = await stack.enter_async_context(receiver(rivya, url, directory, **settings))  # type: ignore[arg-type]
        inbox = await stack.enter_async_context(open_inbox())
        await _prepare(service, inbox.url)
        browser = await stack.enter_async_context(open_browser())
        cookies = await sign_in(browser, service.process.url, TOKEN)
        for shot in SCREENSHOTS:
            async with open_context(
                browser, service.process.url, width=shot.width, scheme=shot.scheme, storage_state=cookies
            ) as (context, _):
                page = await context.new_page()
                await page.set_viewport_size({"width": shot.width, "height": shot.height})
                await page.goto(shot.path)
                await _settle(page)
                await page.screenshot(path=IMAGES / f"{shot.name}.png")
            sys.stdout.write(f"docs/images/{shot.name}.png\n")


async def _prepare(service: Receiver, webhook_url: str) -> None:
    """Tokens with limits, and a webhook that was called."""
    for token in _TOKENS:
        (await service.client.post("/api/v1/tokens", json=token)).raise_for_status()
    webhook = {"name": "Shop backend", "url": webhook_url}
    created = (await service.client.post("/api/v1/webhooks", json=webhook)).raise_for_status().json()
    (await service.client.post(f"/api/v1/webhooks/{created['id']}/test")).raise_for_status()


async def _settle(page: Page) -> None:
    """Wait for pictures, fonts and what is loaded afterwards."""
    await page.wait_for_function("document.fonts.status === 'loaded'")
    await page.wait_for_function(
        "![...document.querySelectorAll('[data-load]')].some(each => each.ariaBusy === 'true')"
    )
    await page.wait_for_function(
        "[...document.images].every(each => each.complete || each.getBoundingClientRect().top > innerHeight)"
    )
    if await page.locator("[data-stream]").count():
        await page.get_by_text("Live", exact=True).wait_for()


if __name__ == "__main__":
    asyncio.run(main())
