"""Whatever a database says that is no value's fault is "not now": 503, never 500, and nothing is kept as unreadable."""

import asyncpg
import pytest
from sqlalchemy import make_url
from structlog.testing import capture_logs

from app.ledger.tables import deliveries
from tests.support.api_harness import open_api
from tests.support.intake_harness import event, open_intake
from tests.support.reports import webhook

FAILING = """
CREATE FUNCTION fail() RETURNS trigger AS $$ BEGIN
RAISE EXCEPTION 'made to fail' USING ERRCODE = '{state}', DETAIL = 'a body'; END $$ LANGUAGE plpgsql;
CREATE TRIGGER failing BEFORE INSERT ON generations FOR EACH ROW EXECUTE FUNCTION fail()
"""
HIDDEN = """
CREATE FUNCTION fail() RETURNS boolean AS $$ BEGIN RAISE EXCEPTION 'made to fail' USING ERRCODE = 'XX001'; END $$
LANGUAGE plpgsql;
ALTER TABLE generations RENAME TO hidden;
CREATE VIEW generations AS SELECT * FROM hidden WHERE fail()
"""
NOT_NOW = {
    "lost prepared statement": "26000",
    "known prepared statement": "42P05",
    "no right": "42501",
    "bad SQL": "42601",
    "internal": "XX000",
    "a trigger's": "P0001",
    "not supported": "0A000",
    "time-out": "57014",
    "unheard of": "ZZ999",
}


@pytest.mark.parametrize("state", NOT_NOW.values(), ids=NOT_NOW)
async def test_a_delivery_is_to_come_again_and_is_applied_then(postgres_url: str, state: str) -> None:
    async with open_intake(postgres_url) as intake:
        operator = await _connected(postgres_url)
        await operator.execute(FAILING.format(state=state))
        with capture_logs() as lines:
            answer = await intake.deliver(event())
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5"), answer.text
        assert await intake.room.rows(deliveries) == []
        [reason] = [line["reason"] for line in lines if line["event"] == "batch.not_recorded"]
        assert reason.startswith(state)
        assert ("made to fail" in reason) == (state != "P0001")
        assert "a body" not in str(lines)
        await operator.execute("DROP TRIGGER failing ON generations; DROP FUNCTION fail()")
        await operator.close()
        assert (await intake.deliver(event())).status_code == 200
        assert [row["outcome"] for row in await intake.room.rows(deliveries)] == ["applied"]


async def test_what_no_value_can_cause_is_logged_with_where_it_came_from(postgres_url: str) -> None:
    async with open_api(postgres_url) as api:
        await api.record(webhook("g", "succeeded"))
        operator = await _connected(postgres_url)
        await operator.execute(HIDDEN)
        await operator.close()
        for path in ("/api/v1/generations", "/api/v1/generations/g"):
            with capture_logs() as lines:
                answer = await api.admin.get(path)
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "database_unavailable")
            [line] = [line for line in lines if line["event"] == "database.error"]
            assert line["reason"] == "XX001 DataCorruptedError: made to fail"
            assert "queries.py" in line["frames"]


async def _connected(url: str) -> asyncpg.Connection:
    return await asyncpg.connect(make_url(url).set(drivername="postgresql").render_as_string())
