"""Another session holds what deliveries need: 503 with `Retry-After`, no 2xx without a row, then well again."""

from pathlib import Path

import asyncpg
import pytest

from app.core.database import Database
from tests.faults.failing import failing

HELD = {
    "the row of an event that comes again": "SELECT FROM deliveries WHERE event_id = 'evt_known' FOR UPDATE",
    "the table, as a migration does": "LOCK TABLE deliveries IN SHARE MODE",
}


@pytest.mark.parametrize("what", HELD)
async def test_a_lock_that_another_session_keeps_is_not_now_and_is_forgotten_when_it_goes(
    postgres_url: str, tmp_path: Path, what: str
) -> None:
    operator = await asyncpg.connect(postgres_url.replace("+asyncpg", ""))
    try:
        async with failing(postgres_url, tmp_path) as service:
            await service.recovered()
            assert (await service.deliver("evt_known")).status_code == 200
            holding = operator.transaction()
            await holding.start()
            await operator.execute(HELD[what])
            answer = await service.deliver("evt_known")
            assert answer.status_code == 503, answer.text
            assert int(answer.headers["retry-after"]) > 0
            await holding.rollback()
            await service.recovered()
            assert (await service.deliver("evt_known")).status_code == 200
            database = Database(postgres_url)
            await service.kept(database)
            await database.dispose()
    finally:
        await operator.close()
