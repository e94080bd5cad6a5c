"""The audit: acts of admins and refused calls of their routes, with who, what and from where."""

from app.core.audit import RETENTION
from tests.support.service_harness import open_service
from tests.support.tokens import call, create

AUDIT = "/api/v1/audit"


async def test_an_act_and_a_refused_call_are_listed_newest_first_in_pages(database_url: str) -> None:
    async with open_service(database_url) as room:
        token = await create(room, role="write")
        room.pass_time(seconds=1)
        await call(room, "POST", "/api/v1/endpoint/repin")
        room.pass_time(seconds=1)
        refused = await call(room, "POST", "/api/v1/endpoint/repin", token)
        assert refused.status_code == 403
        await room.service.audit.run_once()
        listed = (await call(room, "GET", AUDIT)).json()
        assert [(each["actor"], each["action"], each["target"]) for each in listed["data"]] == [
            ("shop", "call.refused", "POST /api/v1/endpoint/repin"),
            ("tests", "POST /api/v1/endpoint/repin", None),
            ("tests", "token.created", "shop"),
        ]
        assert listed["data"][0]["request_id"] == refused.headers["x-request-id"]
        assert listed["next_cursor"] is None
        assert token not in str(listed)
        first = (await call(room, "GET", f"{AUDIT}?limit=2")).json()
        rest = (await call(room, "GET", f"{AUDIT}?limit=2&cursor={first['next_cursor']}")).json()
        assert first["data"] + rest["data"] == listed["data"]
        for query, count in (("actor=tests", 2), ("action=call.refused", 1), ("target=shop", 1), ("actor=nobody", 0)):
            assert len((await call(room, "GET", f"{AUDIT}?{query}")).json()["data"]) == count
        since = (await call(room, "GET", f"{AUDIT}?recorded_after=2026-05-10T12:00:01Z")).json()
        assert len(since["data"]) == 2
        assert (await call(room, "GET", AUDIT, token)).status_code == 403


async def test_entries_are_deleted_after_400_days(database_url: str) -> None:
    async with open_service(database_url) as room:
        await create(room)
        await room.service.audit.run_once()
        assert len((await call(room, "GET", AUDIT)).json()["data"]) == 1
        room.pass_time(days=RETENTION.days, seconds=1)
        await room.service.audit.run_once()
        assert (await call(room, "GET", AUDIT)).json()["data"] == []


async def test_a_flood_of_refused_calls_is_a_few_rows_that_count_them(sqlite_url: str) -> None:
    async with open_service(sqlite_url) as room:
        token = await create(room, role="read")
        for _ in range(50):
            assert (await call(room, "POST", "/api/v1/endpoint/repin", token)).status_code == 403
        await room.service.audit.run_once()
        rows = (await call(room, "GET", f"{AUDIT}?action=call.refused")).json()["data"]
        assert len(rows) == 21
        assert [row["detail"] for row in rows if row["detail"]] == [
            "30 more refused calls by this time, which are not listed"
        ]
