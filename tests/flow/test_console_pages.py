"""The console's pages over HTTP: roles, headers, errors as pages, the overview, the audit, the stream."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from httpx_sse import EventSource, ServerSentEvent
from sqlalchemy import insert

from app.core.audit import COMMAND_LINE
from app.core.background import BackgroundLoops
from app.core.clock import SystemClock
from app.core.middleware import PAGE_POLICY
from app.ledger.metrics import REFUSALS
from app.ledger.tables import activity_minutes
from tests.support.clock import NOON
from tests.support.console import Visitor, visiting
from tests.support.http_paths import HttpPath, serve_app
from tests.support.plans import explain
from tests.support.receivers import TOKEN
from tests.support.reports import poll, submit, webhook
from tests.support.service_harness import ServiceHarness, open_service
from tests.support.tokens import create

PAGES = (
    "/console",
    "/console?range=day",
    "/console?range=week",
    "/console/audit",
    "/console/nothing",
    "/console/login",
)
HOSTILE = "<script>alert(1)</script>"


def words(html: str) -> str:
    """What a person reads."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html)).strip()


@pytest.mark.parametrize("path", PAGES)
async def test_a_page_runs_only_our_files_and_is_kept_by_nobody(sqlite_url: str, path: str) -> None:
    async with open_service(sqlite_url) as room, visiting(room, None if path.endswith("login") else TOKEN) as visitor:
        answer = await visitor.get(path)
        assert answer.headers["content-security-policy"] == PAGE_POLICY
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["referrer-policy"] == "same-origin"  # with no-referrer, forms would come from `null`
        assert answer.headers["x-frame-options"] == "DENY"
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|<script(?! src=\"/console/static/)", answer.text)
        assert len(answer.content) < 60_000


async def test_a_page_that_is_not_there_is_an_error_page_and_a_slash_too_many_is_none(sqlite_url: str) -> None:
    async with open_service(sqlite_url) as room, visiting(room) as visitor:
        answer = await visitor.get("/console/nothing")
        assert answer.status_code == 404
        assert "Not found There is no such page." in words(answer.text)
        assert "Sign out" in answer.text
        assert (await visitor.get("/console/")).headers["location"] == "/console"


async def test_a_wrong_parameter_is_named_on_an_error_page(sqlite_url: str) -> None:
    async with open_service(sqlite_url) as room, visiting(room) as visitor:
        for path, name in (
            ("/console?range=year", "range"),
            ("/console/audit?limit=0", "limit"),
            ("/console/audit?x=1", "x"),
        ):
            answer = await visitor.get(path, headers={"Referer": "http://127.0.0.1:8000/console/audit"})
            assert answer.status_code == 400
            assert f"{name}:" in words(answer.text)
            assert 'href="/console/audit">Go back' in answer.text


@pytest.mark.parametrize("role", ["read", "write", "admin", "read-own", "write-own"])
async def test_a_role_sees_what_it_may(sqlite_url: str, role: str) -> None:
    async with open_service(sqlite_url) as room, visiting(room, await create(room, role=role)) as visitor:
        overview = await visitor.get("/console")
        assert overview.status_code == 200
        assert ('href="/console/audit"' in overview.text) == (role == "admin")
        assert ("What happened" in overview.text) == (not role.endswith("-own"))
        audit = await visitor.get("/console/audit")
        assert audit.status_code == (200 if role == "admin" else 403)
        if role != "admin":
            assert f"Token shop has the role {role}; admin is needed." in audit.text


async def test_the_overview_shows_the_record_as_it_is_now(database_url: str) -> None:
    async with open_service(database_url) as room, visiting(room) as visitor:
        settled = (webhook("a", "succeeded"), webhook("b", "failed"), poll("c", "succeeded"))
        reports = [*(submit(name) for name in "abcd"), *settled]
        recorder = room.service.batch._recorder
        recorder.note(reports, await recorder.commit(reports))
        room.service.activity.count(REFUSALS, NOON)
        await room.service.activity.run_once()
        await room.service.heartbeat.run_once()
        text = words((await visitor.get("/console")).text)
        for expected in (
            "Open 1 waiting for an outcome",
            "Settled 3 in the last hour",
            "Failed 1 in the last hour",
            "Callbacks missed 1 found by poll",
            "Outcomes 3 generations settled by webhook 2 by poll 1",
            "Deliveries 3 deliveries recorded 2 refused 1",
            "Polls 1 polls answered 1 failed 0",
            "1 process running",
        ):
            assert expected in text
        for window in ("day", "week"):
            assert "Outcomes 3 generations settled" in words((await visitor.get(f"/console?range={window}")).text)
        links = re.findall(r'<dt><a href="([^"]+)"', (await visitor.get("/console")).text)
        assert len(links) == 5
        for link in links:
            assert (await visitor.get(link)).status_code == 200
        room.pass_time(hours=2)
        assert "Settled 0 in the last hour" in words((await visitor.get("/console")).text)
        assert "No generation was settled in this time." in (await visitor.get("/console")).text
        assert "Outcomes 3 generations settled" in words((await visitor.get("/console?range=day")).text)


async def test_the_overview_reads_sums_of_its_window_and_no_generation_or_delivery(database_url: str) -> None:
    async with open_service(database_url) as room, visiting(room) as visitor:
        counts = dict.fromkeys(("count", "within_1s", "within_10s", "within_1m", "within_10m"), 1)
        minutes = [NOON - timedelta(minutes=minute) for minute in range(14 * 24 * 60)]
        rows = [{"minute": minute, "what": "deliveries", **counts} for minute in minutes]
        async with room.service.database.transaction() as connection:
            await connection.execute(insert(activity_minutes), rows)
        plans: list[str] = []
        explain(room.service.database, plans)
        for window, count in (("hour", 60), ("day", 71 * 20 + 1), ("week", 83 * 120 + 1)):
            shown = words((await visitor.get(f"/console?range={window}")).text)
            assert f"Deliveries {count:,} deliveries" in shown
        assert any("activity_minutes" in plan for plan in plans)
        text = "\n".join(plans)
        assert not re.search(r"(Seq Scan on|SCAN) (polls|activity_minutes)", text), text
        assert not re.search(r"\b(generations|deliveries|transitions)\b", text), text


async def test_an_alarm_is_in_words_with_its_remedy_and_figures_are_for_admins(database_url: str) -> None:
    async with open_service(database_url) as room:
        await room.registered()
        await room.record(*(submit(str(index)) for index in range(6)))
        await room.record(*(poll(str(index), "succeeded") for index in range(6)))
        await room.service.alarms.run_once()
        reader = await create(room, role="read")
        async with visiting(room) as admin, visiting(room, reader) as visitor:
            remedy = "callbacks do not come: see `deliveries` and `endpoint`"
            shown = words((await admin.get("/console")).text)
            assert "Callbacks missed 100% of the outcomes of the last hour were found by poll" in shown
            assert remedy in shown
            shown = words((await visitor.get("/console")).text)
            assert f"Callbacks missed {remedy}" in shown
            assert "100%" not in shown


async def test_credits_are_loaded_after_the_page_and_shown_at_once_for_a_minute(database_url: str) -> None:
    async with open_service(database_url) as room, visiting(room) as visitor:
        assert 'data-load="/console/credits"' in (await visitor.get("/console")).text
        shown = await visitor.get("/console/credits")
        assert shown.text == "100,000"
        page = (await visitor.get("/console")).text
        assert "data-load" not in page
        assert "Credits left 100,000" in words(page)
        room.pass_time(seconds=61)
        assert "data-load" in (await visitor.get("/console")).text


async def test_the_audit_is_shown_in_pages_with_filters_and_escapes_what_comes_from_outside(database_url: str) -> None:
    async with open_service(database_url) as room:
        for index in range(3):
            await create(room, name=f"shop-{index}", models=[HOSTILE])
            room.pass_time(seconds=1)
        async with visiting(room) as visitor:
            first = await visitor.get("/console/audit?limit=2&actor=&recorded_after=2026-05-10T12:00")
            assert "token.created" in first.text
            assert HOSTILE not in first.text
            assert "&lt;script&gt;" in first.text
            older = re.search(r'href="([^"]+)" rel="next"', first.text)
            assert older is not None
            second = await visitor.get(older[1].replace("&amp;", "&"))
            assert "shop-0" in second.text
            assert "shop-2" not in second.text
            assert "No entry fits" in (await visitor.get("/console/audit?actor=nobody")).text


async def test_a_page_that_reads_itself_anew_takes_no_notice_from_the_next_and_leads_to_no_sign_in(
    sqlite_url: str,
) -> None:
    anew = {"Sec-Fetch-Dest": "empty"}  # as browsers send it with what scripts ask for
    async with open_service(sqlite_url) as room, visiting(room) as visitor:
        await visitor.send_form("/console", "/console/deliveries/replay")
        page = await visitor.get("/console/deliveries", headers=anew)
        assert "set-cookie" not in page.headers
        assert "There was none" not in page.text
        assert "There was none" in (await visitor.get("/console/deliveries")).text
        visitor.cookies.set("receiver_session", "of-a-session-that-has-ended", domain="127.0.0.1", path="/console")
        ended = await visitor.get("/console/deliveries", headers=anew)
        assert (ended.status_code, "set-cookie" in ended.headers) == (401, False)


@asynccontextmanager
async def following(room: ServiceHarness, visitor: Visitor) -> AsyncIterator[AsyncIterator[ServerSentEvent]]:
    """The messages of the stream that the visitor's pages follow, from a server, while the feed is read."""
    loops = BackgroundLoops(SystemClock())
    async with serve_app(room.service.app, HttpPath.PLAIN) as served, asyncio.timeout(60):
        loops.start("tail", room.service.feed_tail.run_once)
        headers = {"Cookie": f"receiver_session={visitor.cookies['receiver_session']}", "Accept": "text/event-stream"}
        async with served.client(**headers) as client, client.stream("GET", "/console/events") as answer:
            assert answer.status_code == 200
            yield aiter(EventSource(answer).aiter_sse())
        room.service.feed_tail.stop()
        await loops.stop()


async def test_the_stream_says_that_the_feed_has_moved(database_url: str) -> None:
    async with open_service(database_url) as room, visiting(room) as visitor, following(room, visitor) as stream:
        assert (await anext(stream)).event == "changed"
        for name in "abc":
            await room.record(submit(name))
        changed = await anext(stream)
        assert (changed.event, changed.data) == ("changed", "{}")


async def test_the_stream_ends_when_the_token_is_revoked(database_url: str) -> None:
    async with open_service(database_url) as room, visiting(room, await create(room, role="read")) as visitor:
        async with following(room, visitor) as stream:
            assert (await anext(stream)).event == "changed"
            await room.service.tokens.revoke("shop", COMMAND_LINE)
            assert [event async for event in stream] == []
        answer = await visitor.get("/console/events", headers={"Accept": "text/event-stream"})
        assert answer.status_code == 401  # no redirect, for which a browser would connect again and again
