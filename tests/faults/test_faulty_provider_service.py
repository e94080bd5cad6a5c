"""Rivya lies on every route we use, in every way: once it behaves our record is its truth, and each gap was counted.

How soon, on the service's own clock and by its own settings, is said by `tests.support.faulty_provider_deadlines`.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, get_args

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from app.ledger.tables import deliveries
from app.sandbox.faults import Alteration, ApiFault, DeliveryFaults
from tests.support.databases import Databases, PostgresDatabases, SqliteDatabases
from tests.support.faulty_provider import CALLBACKS
from tests.support.faulty_provider_checks import endpoint_serves, every_gap_was_counted, is_the_truth
from tests.support.faulty_provider_deadlines import allowed_until
from tests.support.faulty_provider_metrics import Counted
from tests.support.faulty_provider_service import HURRIED, PATIENT, FaultyProviderService, faulty_provider_service
from tests.support.run_counts import counted as count_run
from tests.support.run_counts import delivered_by, faults_of, is_over

ROUTES = st.sampled_from(
    [
        *("generations.get", "generations.get", "generations.create", "models.list", "*"),
        *(f"webhooks.{word}" for word in ("list", "get", "create", "update", "delete", "rotate", "test", "*")),
    ]
)
BROKEN: list[dict[str, Any]] = [
    {"connection": "reset"},
    {"connection": "hang_up"},
    {"hang": 100_000.0},
    *({"status": 200, "body": body} for body in ("garbage", "empty")),
    *({"status": 502, "body": body} for body in ("garbage", "empty")),
    *({"alter": how} for how in get_args(Alteration)),
]
REFUSALS = [
    {"status": 429, "retry_after": 7},
    {"status": 429},
    {"status": 500},
    {"status": 503},
    {"status": 400},
    {"status": 401},
    {"status": 403},
    {"status": 404},
]
ANSWERS = st.one_of(
    st.sampled_from([{**how, "when": when} for how in BROKEN for when in ("before", "after")]),
    st.sampled_from(REFUSALS),
)
BECOMES = st.sampled_from([*CALLBACKS, {"early": True}, {"early": True, "drop": True}])
FIRST = st.tuples(
    st.tuples(st.just("answers"), st.tuples(st.just("generations.create"), st.just(1), ANSWERS)),
    st.tuples(st.just("create"), st.none()),
    st.tuples(st.just("answers"), st.tuples(st.just("generations.get"), st.integers(1, 3), ANSWERS)),
    st.tuples(st.just("callbacks"), BECOMES),
    st.tuples(st.just("wait"), st.sampled_from([70.0, 120.0])),
)
"""So that each example has some of what there is to be counted, however few there are."""
REST = st.lists(
    st.one_of(
        st.tuples(st.just("create"), st.none()),
        st.tuples(st.just("answers"), st.tuples(ROUTES, st.integers(1, 3), ANSWERS)),
        st.tuples(st.just("callbacks"), BECOMES),
        st.tuples(st.just("end"), st.sampled_from(["succeeded", "failed"])),
        st.tuples(st.just("claim"), st.sampled_from(["queued", "processing"])),
        st.tuples(st.just("wait"), st.sampled_from([1.0, 30.0, 70.0, 330.0])),
        st.tuples(st.just("clock"), st.sampled_from([-600.0, 0.0, 600.0])),
        st.tuples(st.just("hurt"), st.sampled_from(["disabled", "deleted"])),
        st.tuples(st.just("key"), st.booleans()),
    ),
    min_size=2,
    max_size=10,
)
STEPS = st.tuples(FIRST, REST).map(lambda both: [*both[0], *both[1]])


async def _step(rivya: FaultyProviderService, what: str, how: Any) -> None:  # noqa: C901 - one arm for each way to lie
    sandbox = rivya.sandbox
    match what:
        case "create":
            await rivya.create()
        case "answers":
            route, times, fault = how
            sandbox.faults.api.append(ApiFault(route=route, times=times, **fault))
            rivya.be_hurried(HURRIED if any(one.hang for one in sandbox.faults.api) else PATIENT)
        case "callbacks":
            sandbox.faults.deliveries = DeliveryFaults(**how)
        case "end" | "claim" if rivya.opened():
            generation_id = rivya.opened()[0]
            await (rivya.end if what == "end" else sandbox.emit)(generation_id, how)
        case "clock":
            rivya.theirs.ahead = how
        case "hurt":
            rivya.hurt(how)
        case "key":
            rivya.revoke(is_revoked=how)
        case "wait":
            await rivya.wait(how)


async def _behave(rivya: FaultyProviderService) -> datetime:
    """Every generation ends, then all faults do; returns when."""
    for generation_id in rivya.opened():
        await rivya.end(generation_id)
    rivya.sandbox.faults.clear()
    rivya.theirs.ahead = 0.0
    rivya.revoke(is_revoked=False)
    rivya.be_hurried(PATIENT)
    return rivya.clock.now()


async def _live(url: str, steps: list[tuple[str, Any]]) -> None:
    if is_over():
        return
    async with faulty_provider_service(url) as rivya:
        counted = Counted()
        await rivya.create()
        for what, how in steps:
            await _step(rivya, what, how)
        over = await _behave(rivya)
        allowed = await allowed_until(rivya, over)
        last = max(allowed["none of them"], *allowed.values())
        while rivya.clock.now() < last and not await rivya.is_all_known():
            await rivya.wait(min(60.0, (last - rivya.clock.now()).total_seconds()))
            for generation_id in rivya.opened():  # of a create that only now got through
                await rivya.end(generation_id)
        await is_the_truth(rivya, allowed)
        await rivya.wait(450)  # the longest time between two looks at the endpoint, and its longest pause
        await endpoint_serves(rivya)
        every_gap_was_counted(rivya, counted)
        recorded = {row["event_id"]: row["attempts"] for row in await rivya.rows(deliveries)}
        count_run(*delivered_by(rivya.sandbox.sender.log), recorded, faults=faults_of(rivya.sandbox) + rivya.hurts)


@contextmanager
def _fresh(databases: Databases) -> Iterator[str]:
    url = databases.migrated()
    try:
        yield url
    finally:
        databases.drop(url)


@settings(
    suppress_health_check=list(HealthCheck),
    max_examples=7 + settings().max_examples // 20,
    phases=[Phase.generate],
    print_blob=True,
)
@given(steps=STEPS)
def test_whatever_rivya_does_the_whole_service_ends_with_the_truth(
    sqlite_databases: SqliteDatabases, steps: list[tuple[str, Any]]
) -> None:
    with _fresh(sqlite_databases) as url:
        asyncio.run(_live(url, steps))


@settings(suppress_health_check=list(HealthCheck), max_examples=3 + settings().max_examples // 40)
@given(steps=STEPS)
def test_and_so_it_does_on_postgresql(postgres_databases: PostgresDatabases, steps: list[tuple[str, Any]]) -> None:
    with _fresh(postgres_databases) as url:
        asyncio.run(_live(url, steps))
