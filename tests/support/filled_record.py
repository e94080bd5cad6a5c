"""A record with something in every table, as the service writes it."""

from datetime import timedelta

from app.core.leases import Leases
from tests.support.clock import NOON
from tests.support.receivers import TOKEN
from tests.support.reports import poll, webhook
from tests.support.service_harness import open_service

FILLED = {
    *(
        "activity_minutes",
        "audit",
        "deliveries",
        "endpoint_history",
        "endpoint_secrets",
        "endpoints",
        "feed",
        "generations",
        "leases",
    ),
    *("poll_budget", "polls", "rejections", "replicas", "submissions", "transitions", "usage_changes", "usage_hours"),
    *("token_charges", "token_rates", "token_revision", "token_secrets", "token_spending", "tokens"),
}


async def fill(url: str) -> None:
    """Something in every table, as the service writes it."""
    async with open_service(url) as room:
        await room.service.reconciler.run_once()
        await room.service.keyring.load()
        body = {"model": "z-image", "prompt": "a river"}
        headers = {"Authorization": f"Bearer {TOKEN}"}
        assert (await room.client.post("/api/v1/generations", json=body, headers=headers)).is_success
        token = {"name": "shop", "role": "write", "models": ["z-image"], "rate": 9, "credits_per_day": 9}
        created = await room.client.post("/api/v1/tokens", json=token, headers=headers)
        shop = {"Authorization": f"Bearer {created.json()['token']}"}
        assert (await room.client.post("/api/v1/generations", json=body, headers=shop)).is_success
        await room.record(webhook("done", "succeeded"), poll("found", "failed"))
        await room.service.batch.record(webhook("called", "succeeded"))
        await room.service.usage_rollup.move()
        await room.service.activity.run_once()
        await room.service.heartbeat.run_once()
        assert (await room.client.post("/rivya/webhook", content=b"{}")).status_code == 401
        await room.service.rejections.run_once()
        await room.service.limiter.acquire()
        room.pass_time(days=91)
        await room.record(webhook("new", "failed", at=room.clock.now()))
        await room.service.retention.run_once()
        await Leases(room.service.database, holder="one").acquire("any", now=NOON, term=timedelta(hours=1))
        await room.service.tokens.load()
        # What was spent 91 days ago has been removed.
        assert (await room.client.post("/api/v1/generations", json=body, headers=shop)).is_success
