"""PostgreSQL stalls more often than there are connections: each one is replaced, and no room for one is lost."""

from functools import partial

import pytest

from app.core.database_url import postgres_options
from app.core.drivers import ConnectionChecks, RawPostgres, connect
from app.core.errors import DatabaseUnavailable
from app.core.migrations import migrate
from app.ledger.decide import plan
from app.ledger.postgres import PostgresRecord
from tests.support.ledger_harness import first_poll
from tests.support.postgres import PostgresCluster
from tests.support.reports import webhook


async def test_deliveries_are_recorded_after_more_stalls_than_there_are_connections() -> None:
    with PostgresCluster() as cluster:
        url = cluster.url("postgres")
        await migrate(url)
        options = postgres_options(url)
        direct = RawPostgres(partial(connect, options, {}, statement_seconds=1.5), ConnectionChecks(), most=1)
        store = PostgresRecord(direct)
        for stall, record in enumerate((store.record, store.record_locked, store.record)):
            for name in (f"before_{stall}", f"during_{stall}"):
                reports = [webhook(name, "succeeded")]
                recorded = record(reports, partial(plan, reports, first_poll=first_poll))
                if name.startswith("before"):
                    await recorded
                    cluster.pause()
                else:
                    with pytest.raises(DatabaseUnavailable):
                        await recorded
            cluster.resume()
        names = await direct.fetch("SELECT generation_id FROM transitions WHERE generation_id LIKE 'before%'")
        assert len(names) == 3
        await direct.close()
