"""What the sandbox delivers, as the receiving side sees it."""

from tests.support.sandbox_harness import world


async def test_a_settled_generation_is_delivered_once_to_a_registered_endpoint() -> None:
    async with world() as w:
        await w.register()
        generation_id = await w.create()
        await w.sandbox.settle(generation_id)
        assert w.inbox.types == ["generation.succeeded"]
        generation = (await w.client.get(f"/api/v1/generations/{generation_id}")).json()
        assert w.inbox.received[0].event["data"] == generation


async def test_a_delivery_begins_with_the_documented_members_and_is_json() -> None:
    async with world() as w:
        await w.register()
        await w.sandbox.settle(await w.create(), "failed")
        request = w.inbox.received[0]
        assert list(request.event)[:4] == ["id", "type", "api_version", "created_at"]
        assert request.event["id"].startswith("evt_")
        assert request.event["api_version"] == "2026-05-11"
        assert request.headers["content-type"] == "application/json"
