"""The console's pages of the record, on both databases: who sees what, who may act, and what is left in the audit."""

from datetime import timedelta
from typing import Any

import pytest
import structlog
from sqlalchemy import update

from app.console.deliveries import readable
from app.core.audit import audit
from app.core.models import Claim
from app.ledger.models import Report, Source
from app.notifications.tables import subscriptions
from tests.support.clock import NOON
from tests.support.console import Visitor, visiting
from tests.support.receivers import TOKEN
from tests.support.reports import webhook
from tests.support.rows import table_rows
from tests.support.service_harness import ServiceHarness, open_service
from tests.support.tokens import create
from tests.support.webhooks_harness import programs

PAGES = (
    "/console/generations",
    "/console/generations?view=gallery&status=failed&tracking=settled&limit=7",
    "/console/generations?q=mine",
    "/console/generations?q=order-mine",
    "/console/generations?created_after=2026-05-10T00%3A00&created_before=",
    "/console/generations/mine",
    "/console/deliveries?outcome=applied&received_after=2026-05-10T00%3A00",
    "/console/deliveries/evt_mine_succeeded",
    "/console/deliveries/replay",
    "/console/refusals",
    "/console/endpoint",
    "/console/usage?by=model",
    "/console/usage.csv?from=2026-05-01",
    "/console/tokens",
    "/console/webhooks",
    "/console/notifications?status=dead",
)


def submitted(generation_id: str, *, by: str) -> Report:
    claim = Claim(generation_id, "queued", model="z-image", reserved_credits=4)
    at = NOON - timedelta(minutes=5)
    return Report(
        source=Source.SUBMIT, reported_at=at, claim=claim, token=by, client_request_id=f"order-{generation_id}"
    )


async def two_settled(room: ServiceHarness) -> None:
    """One of the token `shop`, one of another."""
    await room.record(submitted("mine", by="shop"), submitted("theirs", by="studio"))
    await room.record(webhook("mine", "succeeded"), webhook("theirs", "failed"))


async def audited(room: ServiceHarness) -> list[tuple[str, str, str | None]]:
    rows: list[dict[str, Any]] = await table_rows(room.service.database, audit)
    return [(row["actor"], row["action"], row["target"]) for row in sorted(rows, key=lambda row: row["id"])]


async def test_every_page_is_served_on_both_databases(database_url: str) -> None:
    async with open_service(database_url) as room, visiting(room) as visitor:
        for page in PAGES:
            status = (await visitor.get(page)).status_code
            assert status == (404 if "mine" in page and "?" not in page else 200), page
        await two_settled(room)
        for page in PAGES:
            answer = await visitor.get(page)
            assert answer.status_code == 200, answer.text
        assert "mine" in (await visitor.get("/console/generations?q=order-mine")).text


@pytest.mark.parametrize("role", ["read-own", "write-own"])
async def test_a_fenced_token_sees_on_no_page_what_is_not_its_own(database_url: str, role: str) -> None:
    async with open_service(database_url) as room:
        secret = await create(room, "shop", role)
        await two_settled(room)
        async with visiting(room, secret) as visitor:
            for page in ("/console/generations", "/console/generations?q=t", "/console/deliveries", "/console/usage"):
                assert "theirs" not in (text := (await visitor.get(page)).text), page
                assert "studio" not in text, page
            for page in ("generations/theirs", "deliveries/evt_theirs_failed"):
                assert (await visitor.get(f"/console/{page}")).status_code == 404
            for page in ("generations/mine", "deliveries/evt_mine_succeeded"):
                assert (await visitor.get(f"/console/{page}")).status_code == 200
            assert "of the settings" not in (await visitor.get("/console/tokens")).text


ACTS = (
    "generations/mine/poll",
    "generations/mine/replay",
    "generations/mine/forget",
    "deliveries/replay",
    "endpoint/rotate",
    "endpoint/repin",
    "endpoint/test",
    "endpoint/reachability",
    "endpoint/orphans/whend_1/remove",
    "tokens",
    "tokens/shop/change",
    "tokens/shop/rotate",
    "tokens/shop/revoke",
)


@pytest.mark.parametrize("role", ["read", "write", "write-own"])
async def test_only_an_admin_acts(sqlite_url: str, role: str) -> None:
    async with open_service(sqlite_url) as room:
        secret = await create(room, "shop", role)
        await two_settled(room)
        async with visiting(room, secret) as visitor:
            for act in ACTS:
                answer = await visitor.send_form("/console/generations", f"/console/{act}")
                assert answer.status_code == 403, act
        assert [actor for actor, _, _ in await audited(room) if actor == "shop"] == ["shop"]  # that it signed in


async def test_a_form_from_elsewhere_acts_never(sqlite_url: str) -> None:
    async with open_service(sqlite_url) as room, visiting(room) as visitor:
        await two_settled(room)
        before = await audited(room)
        for act in ACTS:
            for options in ({"headers": {"Origin": "https://evil.example"}}, {"data": {"csrf": "0" * 64}}):
                answer = await visitor.send_form("/console/generations", f"/console/{act}", **options)
                assert answer.status_code == 403, act
            assert await audited(room) == before, act


async def act(visitor: Visitor, path: str, **fields: str) -> str:
    """The words of the notice, or of the error page."""
    answer = await visitor.send_form("/console/generations", f"/console/{path}", data=fields)
    if answer.status_code == 303:
        return (await visitor.get(answer.headers["location"])).text
    return answer.text


async def test_acts_change_the_record_as_the_api_does_and_are_in_the_audit(database_url: str) -> None:
    async with open_service(database_url) as room, visiting(room) as visitor:
        await two_settled(room)
        assert "Rivya does not know this generation" in await act(visitor, "generations/mine/poll")
        assert "Replayed 1 delivery: 1 skipped" in await act(visitor, "generations/mine/replay")
        assert "Replayed 2 deliveries: 2 skipped" in await act(visitor, "deliveries/replay")
        assert "typed as it is shown" in await act(visitor, "generations/mine/forget", confirm="theirs")
        assert "Forgotten: mine" in await act(visitor, "generations/mine/forget", confirm="mine")
        assert (await visitor.get("/console/generations/mine")).status_code == 404
        acts = [f"{action} {target}" for _, action, target in await audited(room) if action.startswith("POST")]
        one = "POST /console/generations/{generation_id:path}"
        forgotten = [f"{one}/forget mine"] * 2  # the first without its confirmation
        assert sorted(acts) == [
            "POST /console/deliveries/replay None",
            *forgotten,
            f"{one}/poll mine",
            f"{one}/replay mine",
        ]


async def test_a_token_is_made_changed_and_revoked_as_the_form_says(sqlite_url: str) -> None:
    async with open_service(sqlite_url) as room, visiting(room) as visitor:
        fields = {"name": "shop", "role": "write", "credits_per_day": "12.5", "models": "a, b", "expires_in_days": "3"}
        assert "rcv_" in await act(visitor, "tokens", **fields)
        assert "rcv_" not in await act(visitor, "tokens/shop/change", credits_per_day="", rate="7")
        [token] = await room.service.tokens.list()
        assert (token.limits.credits_per_day, token.limits.models, token.limits.rate) == (None, None, 7)
        assert token.expires_at == NOON + timedelta(days=3)
        assert "must be a whole number of hours" in await act(visitor, "tokens/shop/rotate", overlap_hours="soon")
        assert "rcv_" in await act(visitor, "tokens/shop/rotate", overlap_hours="1")
        assert "typed as it is shown" in await act(visitor, "tokens/shop/revoke")
        assert "Revoked: shop" in await act(visitor, "tokens/shop/revoke", confirm="shop")
        assert "expires_in_days" in await act(visitor, "tokens", name="other", role="read", expires_in_days="-1")
        assert "credits_per_day" in await act(visitor, "tokens", name="other", role="read", credits_per_day="much")
        assert "role" in await act(visitor, "tokens", name="other", role="king")


async def test_a_webhook_that_fails_needs_attention_of_those_who_reach_it(database_url: str) -> None:
    async with programs(database_url) as it:
        dead, gone = await it.webhook(), await it.webhook()
        for failing, values in ((dead, {"failure_count": 20}), (gone, {"failure_count": 1, "status": "disabled"})):
            async with it.room.service.database.transaction() as connection:
                await connection.execute(
                    update(subscriptions).where(subscriptions.c.id == failing["id"]).values(values)
                )
        a_token_of = "a-token-of-{}-00000".format
        for token, is_shown in ((TOKEN, True), (a_token_of("shop"), True), (a_token_of("other"), False)):
            async with visiting(it.room, token) as visitor:
                page = (await visitor.get("/console")).text
                assert (f'href="/console/webhooks/{dead["id"]}">Webhook Production' in page) == is_shown
                assert ("20 attempts in a row" in page, "It is switched off" in page) == (is_shown, is_shown)


async def test_what_nobody_expected_is_answered_by_a_page_that_says_where_it_is_logged(sqlite_url: str) -> None:
    async with programs(sqlite_url) as it, visiting(it.room) as visitor:
        await it.webhook()
        async with it.room.service.database.transaction() as connection:
            await connection.execute(update(subscriptions).values(event_types="no JSON"))
        with structlog.testing.capture_logs() as logs:
            answer = await visitor.get("/console/webhooks")
        assert (answer.status_code, answer.headers["content-type"]) == (500, "text/html; charset=utf-8")
        assert f"it has been logged, as {answer.headers['x-request-id']}" in answer.text
        assert "Sign out" in answer.text
        [logged] = [each for each in logs if each["log_level"] == "error"]
        assert (logged["event"], logged["route"]) == ("request.failed", "/console/webhooks")
        assert "JSON" not in answer.text


async def test_a_secret_is_shown_once_and_reloading_its_page_acts_not_again(sqlite_url: str) -> None:
    async with open_service(sqlite_url) as room, visiting(room) as visitor:
        for path, fields in (("tokens", {"name": "shop", "role": "write"}), ("tokens/shop/rotate", {})):
            answer = await visitor.send_form("/console/tokens", f"/console/{path}", data=fields)
            page = answer.headers["location"]
            assert "rcv_" in (await visitor.get(page)).text
            again = await visitor.get(page)
            assert (again.status_code, again.headers["location"]) == (303, "/console/tokens")
            assert "A secret is shown once." in (await visitor.get("/console/tokens")).text
        actions = [action for _, action, target in await audited(room) if target == "shop"]
        assert sorted(actions) == ["token.created", "token.rotated"]


async def test_whoever_rotates_the_token_of_the_session_sees_its_new_secret(sqlite_url: str) -> None:
    async with open_service(sqlite_url) as room, visiting(room, await create(room, "ops", "admin")) as visitor:
        answer = await visitor.send_form("/console/tokens", "/console/tokens/ops/rotate")
        assert "rcv_" in (await visitor.get(answer.headers["location"])).text
        assert "/login" in (await visitor.get("/console/tokens")).headers["location"]


@pytest.mark.parametrize("address", ["tokens/shop/rotate", "webhooks/whend_1/rotate", "endpoint/test"])
async def test_the_address_of_a_form_leads_to_its_page(sqlite_url: str, address: str) -> None:
    async with open_service(sqlite_url) as room, visiting(room) as visitor:
        answer = await visitor.get(f"/console/{address}")
        assert (answer.status_code, answer.headers["location"]) == (303, f"/console/{address.partition('/')[0]}")


async def test_usage_as_a_file_begins_no_formula(sqlite_url: str) -> None:
    async with open_service(sqlite_url) as room, visiting(room) as visitor:
        await room.record(
            Report(
                source=Source.SUBMIT,
                reported_at=NOON - timedelta(hours=1),
                claim=Claim("g", "queued", model="=1+1"),
                token="-shop",
            )
        )
        answer = await visitor.get("/console/usage.csv")
        assert answer.headers["content-type"] == "text/csv; charset=utf-8"
        assert answer.text.splitlines()[1].startswith(f"{NOON:%Y-%m-%d},'-shop,'=1+1,1,1,")


@pytest.mark.parametrize(
    "page", ["generations?status=gone", "generations?cursor=x", "usage?from=never", "deliveries?x=1"]
)
async def test_a_query_that_is_not_valid_is_named(sqlite_url: str, page: str) -> None:
    async with open_service(sqlite_url) as room, visiting(room) as visitor:
        answer = await visitor.get(f"/console/{page}")
        assert answer.status_code == 400
        assert page.partition("?")[2].partition("=")[0] in answer.text


async def test_what_only_json_itself_can_hold_is_shown(sqlite_url: str) -> None:
    large, deep = 10**30, b"[" * 300 + b"]" * 300
    async with open_service(sqlite_url) as room, visiting(room) as visitor:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        tracked = await room.client.put("/api/v1/generations/g", json={"metadata": {"a": large}}, headers=headers)
        assert tracked.status_code == 201
        answer = await visitor.get("/console/generations/g")
        assert answer.status_code == 200
        assert str(large) in answer.text
    for body, kind in ((deep, "JSON"), (b'{"a":%d}' % large, "JSON"), (b"[" * 1100, "text")):
        assert readable(body) == (body.decode(), kind)


@pytest.mark.parametrize(("action", "field"), [("tokens", "expires_in_days"), ("tokens/shop/rotate", "overlap_hours")])
async def test_a_number_of_thousands_of_digits_is_named(sqlite_url: str, action: str, field: str) -> None:
    async with open_service(sqlite_url) as room, visiting(room) as visitor:
        form = {"name": "shop", "role": "read", field: "9" * 5000}
        answer = await visitor.send_form("/console/tokens", f"/console/{action}", data=form)
        assert answer.status_code == 400
        assert f"{field}: must be" in answer.text
