"""The tokens that have polls due take turns: what one of them tracks does not delay the polls of another."""

from datetime import datetime, timedelta

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.database import Database
from app.ledger.tables import polls
from app.polling.claims import LEASE, DuePolls
from tests.support.clock import NOON


async def _due(connection: AsyncConnection, token: str, source: str, count: int, *, at: datetime) -> None:
    rows = [
        {
            "generation_id": f"{token}-{source}-{number}",
            "token": token,
            "source": source,
            "next_poll_at": at,
            "first_seen_at": at,
            "state": "watching",
            "polls": 0,
            "failures": 0,
            "not_found_count": 0,
        }
        for number in range(count)
    ]
    await connection.execute(insert(polls), rows)


async def _claimed(database: Database, *claims: int) -> list[list[str]]:
    """The generations that each claim gets, by token and source."""
    due, after, claimed = DuePolls(is_sqlite=database.is_sqlite), "", []
    for most in claims:
        async with database.transaction() as connection:
            leases, after = await due.claim(connection, now=NOON, until=NOON + LEASE, most=most, after=after)
        claimed.append([lease.generation_id.rpartition("-")[0] for lease in leases])
    return claimed


async def test_each_token_gets_its_share_however_many_another_has_and_however_few_are_claimed(
    database_url: str,
) -> None:
    database = Database(database_url)
    async with database.transaction() as connection:
        await _due(connection, "blog", "operator", 200, at=NOON - timedelta(hours=1))
        await _due(connection, "shop", "submit", 3, at=NOON)
        await _due(connection, "", "webhook", 2, at=NOON)
    one_each = await _claimed(database, 1, 1, 1, 1, 1, 1)
    assert [name for names in one_each for name in names] == ["blog-operator", "shop-submit", "-webhook"] * 2
    assert await _claimed(database, 6) == [["blog-operator", "shop-submit", *["blog-operator"] * 4]]
    await database.dispose()


async def test_what_a_token_submitted_comes_before_what_it_tracks(database_url: str) -> None:
    database = Database(database_url)
    async with database.transaction() as connection:
        await _due(connection, "shop", "operator", 50, at=NOON - timedelta(hours=1))
        await _due(connection, "shop", "submit", 2, at=NOON)
    assert await _claimed(database, 3) == [["shop-submit", "shop-submit", "shop-operator"]]
    await database.dispose()


async def test_what_one_token_leaves_of_its_share_goes_to_those_that_have_more(database_url: str) -> None:
    database = Database(database_url)
    async with database.transaction() as connection:
        await _due(connection, "blog", "operator", 50, at=NOON)
        await _due(connection, "shop", "submit", 3, at=NOON)
    shared, filled, rest = await _claimed(database, 4, 20, 50)
    assert shared == ["blog-operator", "shop-submit"] * 2
    assert filled == ["blog-operator", "shop-submit", *["blog-operator"] * 18]
    assert rest == ["blog-operator"] * 29
    await database.dispose()


async def test_a_poll_that_is_written_with_a_time_long_past_is_found_ten_seconds_later(database_url: str) -> None:
    database = Database(database_url)
    due, late = DuePolls(is_sqlite=database.is_sqlite), NOON - timedelta(hours=1)
    async with database.transaction() as connection:
        await _due(connection, "shop", "submit", 1, at=NOON)
        assert await due.next_due(connection, now=NOON) == NOON
        await _due(connection, "blog", "submit", 1, at=late)
        assert await due.next_due(connection, now=NOON + timedelta(seconds=9)) == NOON
        assert await due.next_due(connection, now=NOON + timedelta(seconds=10)) == late
        leases, _ = await due.claim(connection, now=NOON, until=NOON + LEASE, most=9, after="")
    assert [lease.generation_id for lease in leases] == ["blog-submit-0", "shop-submit-0"]
    await database.dispose()


async def test_polls_are_looked_for_from_the_beginning_once_the_clock_was_set_back(database_url: str) -> None:
    database = Database(database_url)
    due, back = DuePolls(is_sqlite=database.is_sqlite), NOON - timedelta(hours=1)
    async with database.transaction() as connection:
        assert await due.next_due(connection, now=NOON) is None
        await _due(connection, "shop", "submit", 1, at=back)
        assert await due.next_due(connection, now=back) == back
    await database.dispose()
