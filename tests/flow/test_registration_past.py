"""Endpoints that are long gone cost nothing, and what they proved is still known."""

from datetime import timedelta
from typing import Any

from sqlalchemy import insert, text

from app.core.database import Database
from app.core.records import uuid7
from app.endpoint.models import State, pinned_scheme
from app.endpoint.repository import EndpointRepository, endpoints
from tests.support.clock import NOON
from tests.support.registration_harness import room
from tests.support.row_counter import RowsRead

GONE = 2000


async def _fill(database: Database, *, scheme: str | None = None) -> None:
    """Endpoints that were retired months ago, one of them with a proven scheme."""
    rows = [_retired(number, scheme=scheme if number == GONE - 100 else None) for number in range(GONE)]
    async with database.transaction() as connection:
        await connection.execute(insert(endpoints), rows)


def _retired(number: int, *, scheme: str | None) -> dict[str, Any]:
    created_at = NOON - timedelta(days=100) + timedelta(minutes=number)
    times = {"created_at": created_at, "updated_at": created_at, "state_since": created_at}
    named = {"id": str(uuid7(created_at)), "path_key": f"key{number}", "url": f"https://old.example/{number}"}
    return {
        **named,
        **times,
        "rivya_id": f"whend_old_{number}",
        "state": State.RETIRED,
        "refusals": 0,
        "scheme": scheme,
    }


async def test_no_loop_reads_endpoints_that_are_long_gone(postgres_url: str) -> None:
    async with room(postgres_url) as r:
        replica = await r.start()
        await _fill(replica.database, scheme="timestamped")
        async with replica.database.engine.connect() as connection:
            committing = await connection.execution_options(isolation_level="AUTOCOMMIT")
            await committing.execute(text("VACUUM ANALYZE endpoints"))
        await r.settle(replica)
        rows_read = RowsRead(replica.database, "endpoints")
        for turn in (replica.reconciler.run_once, replica.keyring.run_once, replica.health.run_once):
            rows_read.counts.clear()
            await turn()
            assert 0 < max(rows_read.counts) < 500


async def test_what_is_read_does_not_grow_with_what_is_gone(database_url: str) -> None:
    async with room(database_url) as r:
        replica = await r.start()
        await _fill(replica.database)
        await r.settle(replica)
        known_endpoints = await EndpointRepository(replica.database).endpoints()
        assert len(known_endpoints) < 50
        assert known_endpoints == sorted(known_endpoints, key=lambda known: known.id, reverse=True)
        assert known_endpoints[0].state is State.SERVING


async def test_the_scheme_that_an_endpoint_of_long_ago_proved_is_still_pinned(database_url: str) -> None:
    async with room(database_url) as r:
        replica = await r.start()
        await _fill(replica.database, scheme="timestamped")
        assert pinned_scheme(await EndpointRepository(replica.database).endpoints()) == "timestamped"


async def test_a_left_over_endpoint_with_a_key_of_long_ago_is_still_known_to_be_ours(database_url: str) -> None:
    async with room(database_url) as r:
        replica = await r.start()
        await _fill(replica.database)
        path_keys = await EndpointRepository(replica.database).path_keys_among({"key7", "nobodys"})
        assert path_keys == {"key7"}
