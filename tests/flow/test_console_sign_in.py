"""Signing in to the console: sessions end with their token, forms need our page, guessing is slow and then refused."""

from datetime import timedelta

import pytest
from sqlalchemy import func, select

from app.console.sign_in import MOST_FAILURES, WINDOW
from app.tokens.sessions import sessions
from tests.support.console import LOGIN, ORIGIN, visiting
from tests.support.receivers import TOKEN
from tests.support.service_harness import ServiceHarness, open_service
from tests.support.tokens import TOKENS, call, create

WRONG = "not-a-token-of-this-receiver"


async def session_rows(room: ServiceHarness) -> int:
    async with room.service.database.read() as connection:
        return (await connection.execute(select(func.count()).select_from(sessions))).scalar_one()


async def test_a_token_signs_in_and_the_cookie_is_stored_as_a_digest_only(database_url: str) -> None:
    async with open_service(database_url) as room, visiting(room, None) as visitor:
        refused = await visitor.get("/console/audit?actor=ops")
        assert refused.status_code == 303
        assert refused.headers["location"] == f"{LOGIN}?next=/console/audit%3Factor%3Dops"
        before = visitor.cookies.get("receiver_session")
        answer = await visitor.sign_in(path=refused.headers["location"])
        assert (answer.status_code, answer.headers["location"]) == (303, "/console/audit?actor=ops")
        cookie = answer.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=lax" in cookie
        assert "path=/console" in cookie
        assert "secure" not in cookie  # on this machine
        session = visitor.cookies["receiver_session"]
        assert session != before
        assert (await visitor.get("/console")).status_code == 200
        async with room.service.database.read() as connection:
            assert session not in str((await connection.execute(select(sessions))).all())


async def test_the_cookie_is_secure_elsewhere(sqlite_url: str) -> None:
    async with open_service(sqlite_url) as room, visiting(room, None) as visitor:
        answer = await visitor.get(LOGIN, headers={"Host": "receiver.example.com"})
        assert "secure" in answer.headers["set-cookie"].lower()


async def test_signing_out_ends_the_session(database_url: str) -> None:
    async with open_service(database_url) as room, visiting(room) as visitor:
        session = visitor.cookies["receiver_session"]
        answer = await visitor.send_form("/console", "/console/logout")
        assert (answer.status_code, answer.headers["location"]) == (303, LOGIN)
        visitor.cookies.set("receiver_session", session)
        assert (await visitor.get("/console")).headers["location"] == LOGIN
        assert await session_rows(room) == 0


async def test_a_session_slides_and_ends_when_it_is_not_used(database_url: str) -> None:
    async with open_service(database_url) as room, visiting(room) as visitor:
        for _ in range(3):
            room.pass_time(hours=11)
            assert (await visitor.get("/console")).status_code == 200
        room.pass_time(hours=12)
        assert (await visitor.get("/console")).status_code == 303
        async with visiting(room):
            assert await session_rows(room) == 1  # those that have expired are gone


async def test_the_time_of_a_session_is_a_setting(database_url: str) -> None:
    async with open_service(database_url, RECEIVER_CONSOLE_SESSION="60") as room, visiting(room) as visitor:
        room.pass_time(seconds=59)
        assert (await visitor.get("/console")).status_code == 200
        room.pass_time(seconds=60)
        assert (await visitor.get("/console")).status_code == 303


@pytest.mark.parametrize("method", ["revoke", "rotate", "expire"])
async def test_a_session_ends_with_its_token(database_url: str, method: str) -> None:
    async with open_service(database_url) as room:
        token = await create(room, role="read", expires_in=60 if method == "expire" else None)
        async with visiting(room, token) as visitor:
            assert (await visitor.get("/console")).status_code == 200
            match method:
                case "revoke":
                    await call(room, "DELETE", f"{TOKENS}/shop")
                case "rotate":  # programs may use the old secret for a while, sessions end at once
                    await call(room, "POST", f"{TOKENS}/shop/rotate", json={"overlap": 600})
                    assert (await call(room, "GET", f"{TOKENS}/me", token)).status_code == 200
                case _:
                    room.pass_time(seconds=60)
                    await room.service.tokens.run_once()
            assert (await visitor.get("/console")).status_code == 303


async def test_a_session_is_known_to_all_replicas_and_ends_where_its_token_is_not_known(postgres_url: str) -> None:
    other_token = "another-token-0123456789"
    async with (
        open_service(postgres_url) as first,
        open_service(postgres_url) as second,
        open_service(postgres_url, RECEIVER_API_TOKENS=f"tests:admin:{other_token}") as third,
        visiting(first) as visitor,
    ):
        token = await create(first)
        await second.service.tokens.load()
        async with visiting(second, token) as shop:
            await call(first, "DELETE", f"{TOKENS}/shop")
            assert (await shop.get("/console")).status_code == 303  # at once: the session is gone from the database
        for room, status in ((second, 200), (third, 303)):
            async with visiting(room, None) as elsewhere:
                elsewhere.cookies.set("receiver_session", visitor.cookies["receiver_session"])
                assert (await elsewhere.get("/console")).status_code == status


async def test_a_wrong_token_is_refused_slower_each_time_then_429_but_the_right_one_enters(database_url: str) -> None:
    async with open_service(database_url) as room, visiting(room, None) as visitor:
        room.service.failed_sign_ins.first_pause = 0
        for _ in range(MOST_FAILURES):
            answer = await visitor.sign_in(WRONG)
            assert answer.status_code == 401
            assert "This token is not one of the receiver&#39;s." in answer.text
            assert WRONG not in answer.text
        refused = await visitor.sign_in(WRONG)
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) <= WINDOW + 1
        async with visiting(room, None, address="192.0.2.2") as neighbour:
            assert (await neighbour.sign_in(WRONG)).status_code == 401
        assert (await visitor.sign_in()).status_code == 303
        room.pass_time(seconds=WINDOW)
        async with visiting(room, None) as later:
            assert (await later.sign_in(WRONG)).status_code == 401


async def test_an_empty_form_asks_for_a_token(sqlite_url: str) -> None:
    async with open_service(sqlite_url) as room, visiting(room, None) as visitor:
        answer = await visitor.sign_in("")
        assert answer.status_code == 401
        assert "Paste a token" in answer.text


async def test_without_cookies_the_page_says_what_is_wrong(sqlite_url: str) -> None:
    async with open_service(sqlite_url) as room, visiting(room, None) as visitor:
        answer = await visitor.post(LOGIN, data={"token": TOKEN}, headers={"Origin": ORIGIN})
        assert answer.status_code == 400
        assert "sent no cookie" in answer.text


async def test_a_form_from_another_origin_does_nothing(sqlite_url: str) -> None:
    async with open_service(sqlite_url) as room, visiting(room) as visitor:
        for origin in ("http://evil.example", "null", "http://127.0.0.1:8001", ""):
            answer = await visitor.send_form("/console", "/console/logout", headers={"Origin": origin})
            assert answer.status_code == 403, origin
            assert "did not come from a page of your session" in answer.text
            assert (await visitor.get("/console")).status_code == 200


async def test_a_form_without_the_token_of_its_session_does_nothing(sqlite_url: str) -> None:
    async with open_service(sqlite_url) as room, visiting(room) as visitor:
        for data in ({}, {"csrf": "0" * 64}, {"csrf": "ü"}):
            answer = await visitor.send_form("/console", "/console/logout", data={"csrf": "", **data})
            assert answer.status_code == 403
        assert (await visitor.get("/console")).status_code == 200


async def test_the_public_origin_is_accepted_where_a_proxy_changes_the_host(sqlite_url: str) -> None:
    url = "https://receiver.example.com"
    async with open_service(sqlite_url, RECEIVER_PUBLIC_URL=url) as room, visiting(room) as visitor:
        answer = await visitor.send_form("/console", "/console/logout", headers={"Origin": url})
        assert answer.status_code == 303


async def test_the_sign_in_leads_to_pages_of_the_console_only(sqlite_url: str) -> None:
    elsewhere = (
        "https://evil.example",
        "//evil.example",
        "/api/v1/events",
        "/console/login",
        "/console\\x",
        "/consolex",
    )
    async with open_service(sqlite_url) as room, visiting(room) as visitor:
        for wanted in elsewhere:
            answer = await visitor.get(LOGIN, params={"next": wanted})
            assert (answer.status_code, answer.headers["location"]) == (303, "/console"), wanted


async def test_signing_in_and_out_is_in_the_audit(database_url: str) -> None:
    async with open_service(database_url) as room, visiting(room) as visitor:
        room.pass_time(seconds=1)
        await visitor.send_form("/console", "/console/logout")
        rows = (await call(room, "GET", "/api/v1/audit")).json()["data"]
        assert [(row["actor"], row["action"], row["target"], row["remote_address"]) for row in rows] == [
            ("tests", "session.deleted", "tests", "192.0.2.1"),
            ("tests", "session.created", "tests", "192.0.2.1"),
        ]


async def test_without_the_database_a_page_says_so_and_nobody_is_signed_out(database_url: str) -> None:
    async with open_service(database_url) as room, visiting(room) as visitor:
        await rename(room, "sessions", "away")
        answer = await visitor.get("/console")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert "The database can&#39;t be reached at the moment." in answer.text
        await rename(room, "away", "sessions")
        assert (await visitor.get("/console")).status_code == 200


async def rename(room: ServiceHarness, name: str, other: str) -> None:
    async with room.service.database.transaction() as connection:
        await connection.exec_driver_sql(f"ALTER TABLE {name} RENAME TO {other}")


async def test_the_console_can_be_turned_off_and_the_documentation_stays(sqlite_url: str) -> None:
    async with open_service(sqlite_url, RECEIVER_CONSOLE="false") as room, visiting(room, None) as visitor:
        for path in ("/console", LOGIN, "/console/audit"):
            assert (await visitor.get(path)).status_code == 404
        assert (await visitor.get("/docs")).status_code == 200


def test_the_window_of_failures_is_ten_minutes() -> None:
    assert timedelta(seconds=WINDOW) == timedelta(minutes=10)


@pytest.mark.parametrize("header", ["Origin", "Referer"])
async def test_a_header_that_is_no_url_is_refused_and_no_error_of_ours(sqlite_url: str, header: str) -> None:
    async with open_service(sqlite_url) as room, visiting(room, None) as visitor:
        await visitor.get(LOGIN)
        assert (await visitor.post(LOGIN, data={"token": TOKEN}, headers={header: "http://["})).status_code == 403
        assert (await visitor.get("/console/nothing", headers={header: "http://["})).status_code == 404
