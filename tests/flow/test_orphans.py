"""What a lost database left at Rivya is found, shown, and removed on an operator's word; nothing else is."""

import asyncio
from pathlib import Path

import pytest

from app.core.errors import NotFound
from app.endpoint.repository import EndpointRepository
from app.endpoint.service import Orphans
from app.sandbox.server import serve_sandbox
from tests.support.receivers import receiver
from tests.support.registration_harness import RegistrationHarness, room


def _left(r: RegistrationHarness, *, name: str = "rivya-receiver", url: str = "") -> str:
    """An endpoint at Rivya that no database of ours knows."""
    body = {"name": name, "url": url or f"{r.public_url}/rivya/webhook/lost", "event_types": ["generation.failed"]}
    return r.sandbox.endpoints.create("default", body).id


async def test_an_endpoint_of_a_lost_database_is_found_and_only_that_one_can_be_removed(database_url: str) -> None:
    async with room(database_url) as r:
        orphan = _left(r)
        others = [_left(r, name="by hand"), _left(r, url="https://other.example/rivya/webhook/lost")]
        replica = await r.settle(await r.start())
        [check] = await replica.reconciler.health_checks()
        assert not check.ok
        assert orphan in check.detail
        assert "endpoint orphans remove ID" in check.detail
        ours = (await r.live())["rivya_id"]
        assert not any(known in check.detail for known in (*others, ours))
        repository = EndpointRepository(replica.database)
        orphans = Orphans(replica.client, repository, clock=r.clock, public_url=r.public_url)
        assert [one.id for one in await orphans.find()] == [orphan]
        for known in (*others, ours, "whend_unknown"):
            with pytest.raises(NotFound):
                await orphans.remove(known)
        assert (await orphans.remove(orphan)).id == orphan
        assert await orphans.find() == []
        assert [one.id for one in r.at_rivya() if one.revoked_at is None] == [*others, ours]
        assert (await repository.history(limit=1))[0].detail == orphan
        r.clock.advance(seconds=400)
        await replica.reconciler.run_once()
        assert [check.ok for check in await replica.reconciler.health_checks()] == [True]
        standby = await r.start(after=0)
        assert await standby.reconciler.health_checks() == []


async def test_a_new_database_leads_to_a_named_orphan_at_once(tmp_path: Path) -> None:
    async with serve_sandbox() as rivya:
        ids = []
        for name in ("lost", "new"):
            async with receiver(rivya, f"sqlite+aiosqlite:///{tmp_path}/{name}.db", tmp_path) as service:
                async with asyncio.timeout(20):
                    while (await service.client.get("/api/v1/endpoint")).json().get("state") != "serving":
                        await asyncio.to_thread(service.process.exit_status, within=0.05)
                ids.append((await service.client.get("/api/v1/endpoint")).json()["rivya_id"])
                async with asyncio.timeout(20):
                    while (check := await service.check("endpoint_orphans"))["ok"] and name == "new":
                        await asyncio.to_thread(service.process.exit_status, within=0.1)
                listed = (await service.client.get("/api/v1/endpoint/orphans")).json()["data"]
                assert [orphan["id"] for orphan in listed] == ids[:-1]
        assert ids[0] in check["detail"]
        assert "****" in listed[0]["url"]
