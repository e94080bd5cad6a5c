"""/livez, /readyz and /metrics: alive without looking, ready only if all that is required is well, never a secret."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta

from app.core.errors import SEE_LOG, HealthCheck
from tests.support.api_harness import ApiHarness, open_api
from tests.support.clock import NOON
from tests.support.reports import submit, webhook

AWAY = "postgresql+asyncpg://nobody:hunter2@127.0.0.1:1/none"


async def well() -> Sequence[HealthCheck]:
    return [HealthCheck("well", ok=True, detail="is well", is_required=True)]


async def optional() -> Sequence[HealthCheck]:
    return [HealthCheck("optional", ok=False, detail="is not well", is_required=False)]


async def required() -> Sequence[HealthCheck]:
    return [HealthCheck("required", ok=False, detail="is not well", is_required=True)]


async def broken() -> Sequence[HealthCheck]:
    raise RuntimeError("hunter2")


async def gauge(api: ApiHarness, name: str) -> str:
    text = (await api.stranger.get("/metrics")).text
    [line] = [line for line in text.splitlines() if line.startswith(f"receiver_{name} ")]
    return line.split()[1]


async def test_ready_when_the_database_is_there_and_migrated(database_url: str) -> None:
    async with open_api(database_url, checks=[well, optional]) as api:
        answer = await api.admin.get("/readyz")
        assert (answer.status_code, answer.json()["status"]) == (200, "ready")
        checks = {check["name"]: (check["ok"], check["required"]) for check in answer.json()["checks"]}
        assert checks == {
            "well": (True, True),
            "optional": (False, False),
            "database": (True, True),
            "migrations": (True, True),
        }


async def test_not_ready_while_something_required_is_not_well(database_url: str) -> None:
    async with open_api(database_url, checks=[well, required]) as api:
        answer = await api.admin.get("/readyz")
        assert (answer.status_code, answer.json()["status"]) == (503, "not_ready")


async def test_not_ready_before_the_first_migration(empty_database_url: str) -> None:
    async with open_api(empty_database_url) as api:
        answer = await api.admin.get("/readyz")
        assert answer.status_code == 503
        assert [check["name"] for check in answer.json()["checks"] if not check["ok"]] == ["migrations"]


async def test_not_ready_but_alive_while_the_database_is_away() -> None:
    async with open_api(AWAY) as api:
        answer = await api.admin.get("/readyz")
        assert answer.status_code == 503
        assert [check["name"] for check in answer.json()["checks"]] == ["database"]
        assert "hunter2" not in answer.text
        assert (await api.stranger.get("/livez")).json() == {"status": "alive"}


async def test_a_check_that_breaks_is_a_failed_one_and_tells_no_secret(database_url: str) -> None:
    async with open_api(database_url, checks=[broken]) as api:
        answer = await api.admin.get("/readyz")
        assert answer.status_code == 503
        assert answer.json()["checks"][-1]["name"] == "broken"
        assert "hunter2" not in answer.text


async def test_a_check_that_breaks_is_named_by_the_part_it_looks_at(sqlite_url: str) -> None:
    class Limiter:
        async def health_checks(self) -> Sequence[HealthCheck]:
            raise OSError

    async with open_api(sqlite_url, checks=[Limiter().health_checks]) as api:
        answer = await api.admin.get("/readyz")
        assert answer.json()["checks"][-1]["name"] == "Limiter"


async def test_a_check_that_hangs_is_given_up(sqlite_url: str) -> None:
    async def hanging() -> Sequence[HealthCheck]:
        await asyncio.Event().wait()
        return []

    async with open_api(sqlite_url, checks=[hanging]) as api:
        async with asyncio.timeout(10):
            answer = await api.admin.get("/readyz")
        assert answer.json()["checks"][-1]["detail"] == "took too long"


async def test_a_check_that_is_slow_to_be_given_up_holds_up_no_answer(sqlite_url: str) -> None:
    is_thawed = asyncio.Event()

    async def tidying() -> Sequence[HealthCheck]:  # as a driver does whose server is frozen
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await is_thawed.wait()
        return []

    async with open_api(sqlite_url, checks=[tidying]) as api:
        async with asyncio.timeout(10):
            answer = await api.admin.get("/readyz")
        is_thawed.set()
        assert answer.json()["checks"][-1]["detail"] == "took too long"


async def test_those_who_ask_within_a_second_get_the_result_of_one_run(sqlite_url: str) -> None:
    runs: list[bool] = []

    async def counted() -> Sequence[HealthCheck]:
        runs.append(True)
        return []

    async with open_api(sqlite_url, checks=[counted]) as api:
        api.readiness.keep_seconds = 3600
        answers = await asyncio.gather(*(api.admin.get("/readyz") for _ in range(20)))
        answers.append(await api.admin.get("/readyz"))
        assert {answer.status_code for answer in answers} == {200}
        assert len(runs) == 1
        api.readiness.keep_seconds = 0
        await api.admin.get("/readyz")
        assert len(runs) == 2


async def test_while_a_run_takes_long_the_result_before_is_given_but_none_that_is_too_old(sqlite_url: str) -> None:
    go_on = asyncio.Event()
    go_on.set()

    async def slow() -> Sequence[HealthCheck]:
        await go_on.wait()
        return []

    async with open_api(sqlite_url, checks=[slow]) as api:
        api.readiness.keep_seconds = 100
        assert (await api.admin.get("/readyz")).status_code == 200
        go_on.clear()
        api.readiness._latest_at -= 1000
        assert (await api.admin.get("/readyz")).status_code == 200
        api.readiness._latest_at -= 1000
        waiting = asyncio.ensure_future(api.admin.get("/readyz"))
        await asyncio.wait({waiting}, timeout=0.5)
        assert not waiting.done()
        go_on.set()
        assert (await waiting).status_code == 200


async def test_those_who_scrape_at_once_share_one_look_and_none_gets_an_older_one(
    sqlite_url: str,
) -> None:
    async with open_api(sqlite_url) as api:
        scrapes = [asyncio.ensure_future(gauge(api, "generations_open")) for _ in range(20)]
        assert set(await asyncio.gather(*scrapes)) == {"0.0"}
        assert api.queries.stats_read <= 2
        await api.record(submit("new"))
        assert await gauge(api, "generations_open") == "1.0"


async def test_the_metrics_tell_how_the_record_stands(database_url: str) -> None:
    async with open_api(database_url) as api:
        assert await gauge(api, "last_verified_delivery_age_seconds") == "NaN"
        await api.record(submit("late", at=NOON - timedelta(minutes=2)), submit("new"), webhook("done", "succeeded"))
        api.clock.advance(seconds=5)
        assert await gauge(api, "database_up") == "1.0"
        assert await gauge(api, "generations_open") == "2.0"
        assert await gauge(api, "generations_overdue") == "1.0"
        assert await gauge(api, "last_verified_delivery_age_seconds") == "5.0"


async def test_what_was_counted_is_among_the_metrics(database_url: str) -> None:
    async with open_api(database_url) as api:
        await api.record(submit("g"), webhook("g", "succeeded"))
        answer = await api.stranger.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain")
        for name in (
            'deliveries_total{outcome="applied"}',
            'transitions_total{from_status="queued",source="webhook",to_status="succeeded"}',
            "callbacks_missed_total",
            "batch_size_count",
            "commit_seconds_count",
        ):
            assert f"\nreceiver_{name} " in answer.text


async def test_the_metrics_come_without_the_database_too() -> None:
    async with open_api(AWAY) as api:
        assert await gauge(api, "database_up") == "0.0"
        assert await gauge(api, "generations_open") == "NaN"
        assert (await api.stranger.get("/metrics")).status_code == 200


async def test_strangers_are_told_what_to_do_and_no_scheme_id_name_or_figure(sqlite_url: str) -> None:
    remedy = "raise RECEIVER_POLL_RATE"
    bare = HealthCheck("bare", ok=False, detail="17 are not well", is_required=False)

    async def overdue() -> Sequence[HealthCheck]:
        detail = "1001 of shop's wait for whend_123, signed as timestamped"
        return [HealthCheck("overdue", ok=False, detail=detail, is_required=False, remedy=remedy), bare]

    async with open_api(sqlite_url, checks=[well, overdue]) as api:
        for client in (api.stranger, api.client, api.writer):
            details = {it["name"]: it["detail"] for it in (await client.get("/readyz")).json()["checks"]}
            assert details == {"database": "ok", "migrations": "ok", "well": "ok", "overdue": remedy, "bare": SEE_LOG}
        details = {it["name"]: it["detail"] for it in (await api.admin.get("/readyz")).json()["checks"]}
        assert details["overdue"].startswith("1001 of shop's")


async def test_metrics_name_tokens_to_admins_only(sqlite_url: str) -> None:
    async with open_api(sqlite_url) as api:
        await api.client.get("/api/v1/generations")
        for client in (api.stranger, api.client, api.writer):
            assert "receiver_api_calls" not in (await client.get("/metrics")).text
        assert 'receiver_api_calls_total{result="succeeded"' in (await api.admin.get("/metrics")).text
