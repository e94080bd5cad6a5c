"""Whatever Rivya says and leaves unsaid, once it behaves our record is what it really did, by a legal history."""

import asyncio
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.ledger.metrics import CALLBACKS_MISSED
from app.ledger.tables import deliveries
from app.sandbox.faults import ApiFault, DeliveryFaults
from tests.support.faulty_provider import CALLBACKS, FaultyProvider, faulty_provider
from tests.support.metric_values import value
from tests.support.run_counts import counted, delivered_by, faults_of, is_over

ANSWERS = st.sampled_from(
    [
        {"status": 429, "retry_after": 7},
        {"status": 500},
        {"status": 503, "body": "empty"},
        {"status": 200, "body": "garbage"},
        {"status": 200, "body": "empty"},
        {"status": 404},
        {"status": 401},
        {"status": 403},
        {"connection": "reset"},
        {"connection": "hang_up"},
    ]
)
ODD = st.sampled_from(
    [
        {"status": "paused"},
        {"status": None, "result": None, "model": None},
        {"status": "queued", "final_credits": 10**40, "created_at": "9999-99-99"},
        {"status": "processing", "unheard_of": {"deep": [None, {"x": "\ufffd"}]}, "updated_at": 1e300},
    ]
)
RAW = st.sampled_from(
    [b"\xff\xfe", b'{"id": "evt_', b"null", b"[]", b'{"data":{"id":5,"status":"succeeded"}}', b"0" * 300]
)
ENDS = st.sampled_from(["succeeded", "failed"])
NUMBERS = st.integers(0, 3)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("create"), st.none()),
        st.tuples(st.just("callbacks"), st.sampled_from(CALLBACKS)),
        st.tuples(st.just("answers"), ANSWERS),
        st.tuples(st.just("end"), st.tuples(NUMBERS, ENDS)),
        st.tuples(st.just("odd"), st.tuples(NUMBERS, ODD)),
        st.tuples(st.just("raw"), RAW),
        st.tuples(st.just("wait"), st.sampled_from([1.0, 30.0, 70.0, 400.0])),
        st.tuples(st.just("disable"), st.booleans()),
    ),
    min_size=4,
    max_size=14,
)


async def _step(rivya: FaultyProvider, what: str, how: Any) -> None:  # noqa: C901 - one arm for each way to lie
    sandbox = rivya.room.sandbox
    match what:
        case "create":
            await rivya.create()
        case "callbacks":
            sandbox.faults.deliveries = DeliveryFaults(**how)
        case "answers":
            sandbox.faults.api = [ApiFault(route="generations.get", times=3, **how)]
        case "end":
            await rivya.end(*how)
        case "odd":
            assert await rivya.claim(*how) == 200
        case "raw":
            assert await rivya.deliver(how) == 200
        case "disable":
            rivya.endpoint.status = "disabled" if how else "active"
        case "wait":
            rivya.room.clock.advance(seconds=how)
            await sandbox.advance(how)
            await rivya.replica.poll()


async def _live(url: str, steps: list[tuple[str, Any]]) -> None:
    if is_over():
        return
    before = value(CALLBACKS_MISSED)
    async with faulty_provider(url) as rivya:
        await rivya.create()
        for what, how in steps:
            await _step(rivya, what, how)
        await rivya.behave()
        assert await rivya.record() == rivya.truth()
        assert await rivya.is_legal()
        assert set(rivya.carrier.statuses) <= {200, 401}
        assert value(CALLBACKS_MISSED) - before >= await rivya.missed()
        recorded = {row["event_id"]: row["attempts"] for row in await rivya.replica.rows(deliveries)}
        sent, accepted = delivered_by(rivya.room.sandbox.sender.log)
        of_rivya = {event_id: count for event_id, count in recorded.items() if event_id in sent}
        counted(sent, accepted, of_rivya, faults=faults_of(rivya.room.sandbox))


@settings(suppress_health_check=list(HealthCheck), max_examples=max(settings().max_examples // 5, 1))
@given(steps=STEPS)
def test_once_rivya_behaves_the_record_is_what_it_really_did(sqlite_url: str, steps: list[tuple[str, Any]]) -> None:
    asyncio.run(_live(sqlite_url, steps))


@settings(suppress_health_check=list(HealthCheck), max_examples=max(settings().max_examples // 10, 1))
@given(steps=STEPS)
def test_and_so_it_is_on_postgresql(postgres_url: str, steps: list[tuple[str, Any]]) -> None:
    asyncio.run(_live(postgres_url, steps))
