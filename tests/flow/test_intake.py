"""Deliveries over HTTP, on both databases: what is verified is durable before 2xx, what is not leaves no trace."""

import asyncio
import gzip
from collections.abc import AsyncIterator

import orjson
import pytest

from app.intake.rejections import MALFORMED, rejections
from app.ledger.tables import deliveries, generations, transitions
from tests.support.http_paths import HttpPath, on_both_paths
from tests.support.intake_harness import MOST_BYTES, PATH_KEY, event, open_intake


@on_both_paths
async def test_a_signed_delivery_is_recorded_and_answered_200(database_url: str, http: HttpPath) -> None:
    async with open_intake(database_url, http=http) as intake:
        body = event()
        answer = await intake.deliver(body)
        assert answer.status_code == 200
        [delivery] = await intake.room.rows(deliveries)
        assert (delivery["event_id"], delivery["outcome"], delivery["body"]) == ("evt_1", "applied", body)
        assert delivery["endpoint_id"] == "endpoint-1"
        assert "rivya-signature" in orjson.loads(delivery["headers"])
        [generation] = await intake.room.rows(generations)
        assert (generation["id"], generation["status"]) == ("task_1", "succeeded")
        assert intake.health.verified == ["endpoint-1"]


@pytest.mark.parametrize(("http", "tasks"), [(HttpPath.FAST, 0), (HttpPath.PLAIN, 2)])
async def test_only_the_fast_path_answers_without_a_task(sqlite_url: str, http: HttpPath, tasks: int) -> None:
    async with open_intake(sqlite_url, http=http) as intake:
        assert (await intake.deliver(event())).status_code == 200
        assert (await intake.client.post("/rivya/webhook", content=b"{}")).status_code == 401
        assert intake.served.tasks.ever == tasks


@on_both_paths
async def test_an_answer_has_one_of_each_header_however_many_were_sent(sqlite_url: str, http: HttpPath) -> None:
    async with open_intake(sqlite_url, http=http) as intake:
        for is_draining in (True, True, False):
            intake.app.is_draining = is_draining
            headers = (await intake.deliver(event())).headers.multi_items()
            assert [value for name, value in headers if name == "connection"] == ["close"] * is_draining


@on_both_paths
async def test_a_replayed_delivery_is_answered_200_and_changes_nothing(database_url: str, http: HttpPath) -> None:
    async with open_intake(database_url, http=http) as intake:
        assert [(await intake.deliver(event())).status_code for _ in range(3)] == [200, 200, 200]
        assert [row["attempts"] for row in await intake.room.rows(deliveries)] == [3]
        assert len(await intake.room.rows(transitions)) == 1


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        (b'{"id":"evt_9","type":"webhook.test","data":{"message":"hello"}}', "test"),
        (b'{"id":"evt_9","type":"generation.paused","data":{"id":"task_1","status":"queued"}}', "unknown_type"),
        (b'{"id":"evt_9","type":"generation.succeeded","data":null}', "unreadable"),
        (b"\x00\xff not JSON at all", "unreadable"),
    ],
)
@on_both_paths
async def test_nothing_verified_is_thrown_away(database_url: str, body: bytes, outcome: str, http: HttpPath) -> None:
    async with open_intake(database_url, http=http) as intake:
        assert (await intake.deliver(body)).status_code == 200
        [delivery] = await intake.room.rows(deliveries)
        assert (delivery["outcome"], delivery["body"]) == (outcome, body)
        assert await intake.room.rows(generations) == []


@pytest.mark.parametrize(
    "wrap",
    [
        lambda it: {"data": it},
        lambda it: {"data": {"object": it}},
        lambda it: {"data": {"generation": it}},
        lambda it: {"generation": it},
        lambda it: {"payload": {"deep": [{"inside": it}]}},
    ],
)
@on_both_paths
async def test_the_generation_is_found_wherever_the_envelope_holds_it(
    sqlite_url: str, wrap: object, http: HttpPath
) -> None:
    assert callable(wrap)
    body = orjson.dumps({"id": "evt_1", "type": "generation.failed", **wrap({"id": "task_7", "status": "failed"})})
    async with open_intake(sqlite_url, http=http) as intake:
        assert (await intake.deliver(body)).status_code == 200
        assert [(row["id"], row["status"]) for row in await intake.room.rows(generations)] == [("task_7", "failed")]


@on_both_paths
async def test_a_contradicting_delivery_is_kept_as_a_conflict_and_answered_200(
    database_url: str, http: HttpPath
) -> None:
    async with open_intake(database_url, http=http) as intake:
        await intake.deliver(event())
        answer = await intake.deliver(event(status="failed", event_id="evt_2"))
        assert answer.status_code == 200
        assert [row["outcome"] for row in await intake.room.rows(deliveries)] == ["applied", "conflict"]
        assert [row["status"] for row in await intake.room.rows(generations)] == ["succeeded"]


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "missing_signature"),
        ({"Rivya-Signature": "who knows"}, "malformed_signature"),
        ({"Rivya-Signature": f"t=1778414400,v1={'0' * 64}"}, "signature_mismatch"),
    ],
)
@on_both_paths
async def test_an_unproved_delivery_is_refused_with_its_reason_and_not_stored(
    sqlite_url: str, headers: dict[str, str], code: str, http: HttpPath
) -> None:
    async with open_intake(sqlite_url, http=http) as intake:
        answer = await intake.client.post(f"/rivya/webhook/{PATH_KEY}", content=event(), headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, code)
        assert await intake.room.rows(deliveries) == []
        assert intake.health.refused == ["endpoint-1"]


@pytest.mark.parametrize(("late", "code"), [(301, "stale_timestamp"), (-301, "future_timestamp")])
@on_both_paths
async def test_a_right_signature_out_of_time_is_refused_with_its_offset(
    sqlite_url: str, late: float, code: str, http: HttpPath
) -> None:
    async with open_intake(sqlite_url, http=http) as intake:
        answer = await intake.deliver(event(), late=late)
        assert answer.status_code == 401
        assert answer.json()["error"] | {"code": code, "offsetSeconds": -late} == answer.json()["error"]


@pytest.mark.parametrize("late", [299, -299])
@on_both_paths
async def test_a_signature_within_300_seconds_is_accepted(sqlite_url: str, late: float, http: HttpPath) -> None:
    async with open_intake(sqlite_url, http=http) as intake:
        assert (await intake.deliver(event(), late=late)).status_code == 200


@on_both_paths
async def test_without_any_secret_everything_is_refused(sqlite_url: str, http: HttpPath) -> None:
    async with open_intake(sqlite_url, http=http) as intake:
        intake.secrets.verifier = type(intake.secrets.verifier)(intake.secrets.verifier.scheme, [])
        answer = await intake.deliver(event())
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "no_secret")


@pytest.mark.parametrize("path", ["/rivya/webhook", "/rivya/webhook/", f"/rivya/webhook/{PATH_KEY}/"])
@on_both_paths
async def test_no_form_of_the_path_is_redirected(sqlite_url: str, path: str, http: HttpPath) -> None:
    async with open_intake(sqlite_url, http=http) as intake:
        assert (await intake.deliver(event(), path=path)).status_code == 200


async def test_a_body_that_is_too_large_is_refused_before_it_is_read(sqlite_url: str) -> None:
    async with open_intake(sqlite_url) as intake:
        read: list[int] = []

        async def endless() -> AsyncIterator[bytes]:
            for _ in range(1000):
                read.append(1024)
                yield b" " * 1024

        assert (await intake.deliver(b" " * (MOST_BYTES + 1))).status_code == 413
        assert (await intake.client.post("/rivya/webhook", content=endless())).status_code == 413
        assert sum(read) <= MOST_BYTES + 2 * 1024
        assert await intake.room.rows(deliveries) == []


@on_both_paths
async def test_a_body_of_exactly_the_limit_is_taken(sqlite_url: str, http: HttpPath) -> None:
    async with open_intake(sqlite_url, http=http) as intake:
        assert (await intake.deliver(b" " * MOST_BYTES)).status_code == 200


@on_both_paths
async def test_what_is_signed_is_kept_whatever_its_form(sqlite_url: str, http: HttpPath) -> None:
    async with open_intake(sqlite_url, http=http) as intake:
        assert (await intake.deliver(b"")).status_code == 200
        assert (await intake.deliver(gzip.compress(event()))).status_code == 200
        assert [row["outcome"] for row in await intake.room.rows(deliveries)] == ["unreadable", "unreadable"]


@on_both_paths
async def test_before_the_secrets_have_been_read_nothing_is_refused_for_good(sqlite_url: str, http: HttpPath) -> None:
    async with open_intake(sqlite_url, http=http) as intake:
        intake.secrets.verifier = type(intake.secrets.verifier)(intake.secrets.verifier.scheme, [])
        intake.secrets.is_read = False
        answer = await intake.deliver(event())
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "database_unavailable")
        assert intake.health.refused == []


@on_both_paths
async def test_what_is_no_delivery_at_all_is_a_400(sqlite_url: str, http: HttpPath) -> None:
    async with open_intake(sqlite_url, http=http) as intake:
        assert (await intake.client.post("/rivya/webhook", content=b"")).status_code == 400
        packed = gzip.compress(event())
        answer = await intake.client.post("/rivya/webhook", content=packed, headers={"Content-Encoding": "gzip"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "not_a_delivery")


async def test_a_refusal_for_size_or_form_is_not_counted_against_the_signature(sqlite_url: str) -> None:
    async with open_intake(sqlite_url) as intake:
        path = f"/rivya/webhook/{PATH_KEY}"
        await intake.client.post(path, content=b" " * (MOST_BYTES + 1))
        await intake.client.post(path, content=b"{}", headers={"Content-Encoding": "br"})
        await intake.client.post(path, content=b"")
        assert intake.health.refused == []
        assert intake.health.malformed == [
            ("endpoint-1", MALFORMED[reason]) for reason in ("too_large", "not_a_delivery", "not_a_delivery")
        ]


@on_both_paths
async def test_an_event_that_may_be_the_test_makes_no_generation(database_url: str, http: HttpPath) -> None:
    async with open_intake(database_url, http=http) as intake:
        assert (await intake.deliver(event("known", event_id="evt_known"))).status_code == 200
        intake.secrets.awaits_test = True
        for event_id in ("evt_test", "evt_test"):
            assert (await intake.deliver(event("made_up", event_id=event_id))).status_code == 200
        assert (await intake.deliver(event("known", "failed", event_id="evt_other"))).status_code == 200
        stored = {row["event_id"]: (row["outcome"], row["attempts"]) for row in await intake.room.rows(deliveries)}
        assert stored == {"evt_known": ("applied", 1), "evt_test": ("test", 2), "evt_other": ("conflict", 1)}
        assert [row["id"] for row in await intake.room.rows(generations)] == ["known"]


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
@on_both_paths
async def test_only_post_delivers(sqlite_url: str, method: str, http: HttpPath) -> None:
    async with open_intake(sqlite_url, http=http) as intake:
        answer = await intake.client.request(method, "/rivya/webhook")
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


async def test_refusals_leave_a_bounded_sample_without_bodies(database_url: str) -> None:
    async with open_intake(database_url) as intake:
        for n in range(50):
            await intake.client.post(f"/rivya/webhook/{PATH_KEY}", content=b"forged %d" % n)
        await intake.refusals.run_once()
        sample = await intake.room.rows(rejections)
        assert 0 < len(sample) <= 20
        assert {row["reason"] for row in sample} == {"missing_signature"}
        assert {row["endpoint_id"] for row in sample} == {"endpoint-1"}
        assert all(row["size"] == len(b"forged 00") for row in sample)


async def test_at_most_1000_refusals_are_kept(sqlite_url: str) -> None:
    async with open_intake(sqlite_url) as intake:
        for _ in range(60):
            intake.clock.advance(seconds=1)
            for _ in range(20):
                await intake.client.post("/rivya/webhook", content=b"forged")
            await intake.refusals.run_once()
        assert len(await intake.room.rows(rejections)) == 1000


@on_both_paths
async def test_a_claim_that_cannot_be_recorded_is_kept_as_unreadable(sqlite_url: str, http: HttpPath) -> None:
    """A credit amount that no column holds, say, must not cost the delivery."""
    async with open_intake(sqlite_url, http=http) as intake:
        async with intake.room.database.transaction() as connection:
            await connection.exec_driver_sql(
                "CREATE TRIGGER poison BEFORE INSERT ON generations BEGIN SELECT RAISE(ABORT, 'poisoned'); END"
            )
        assert (await intake.deliver(event())).status_code == 200
        assert [row["outcome"] for row in await intake.room.rows(deliveries)] == ["unreadable"]


@on_both_paths
async def test_while_the_database_is_away_the_answer_is_503_and_come_again(http: HttpPath) -> None:
    async with open_intake("postgresql+asyncpg://nobody@127.0.0.1:1/none", http=http) as intake:
        answer = await intake.deliver(event())
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
        assert answer.json()["error"]["code"] == "database_unavailable"


async def test_a_body_that_stops_coming_is_answered_408(monkeypatch: pytest.MonkeyPatch, sqlite_url: str) -> None:
    async def stalled() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    monkeypatch.setattr("app.core.bodies.SECONDS", 0.05)
    async with open_intake(sqlite_url) as intake:
        answer = await intake.client.post("/rivya/webhook", content=stalled())
    assert (answer.status_code, answer.json()["error"]["code"]) == (408, "body_incomplete")
    assert answer.content.endswith(b"}\n")
