"""An alarm that is raised or cleared is an event, once for all replicas, whatever becomes of them."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.core.database import Database
from app.core.errors import DatabaseUnavailable
from app.operations.alarms import Alarm, AlarmEvents
from tests.support.reports import submit, webhook
from tests.support.scripted_provider import Heard
from tests.support.webhooks_harness import programs

NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)
QUIET, LOUD = {Alarm.SILENCE: 10.0}, {Alarm.SILENCE: 1810.0}
THRESHOLDS = {Alarm.SILENCE: 1800.0}


@dataclass
class Published:
    """What would be sent: an id that came before makes nothing new, as in the table of notifications."""

    events: dict[str, tuple[bool, float]] = field(default_factory=dict)
    fails: bool = False

    async def publish(
        self, *, event_id: str, alarm: str, is_raised: bool, value: float, threshold: float, now: datetime
    ) -> int:
        if self.fails:
            raise DatabaseUnavailable
        assert (alarm, threshold) == ("silence", 1800.0)
        self.events.setdefault(event_id, (is_raised, value))
        return 1

    @property
    def words(self) -> list[str]:
        return ["raised" if is_raised else "cleared" for is_raised, _ in self.events.values()]


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url)
    yield database
    await database.dispose()


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


async def test_an_alarm_is_published_when_it_is_raised_and_15_s_after_nobody_finds_it_raised(
    database: Database,
) -> None:
    published = Published()
    replica = AlarmEvents(database, published.publish)
    await replica.update(QUIET, THRESHOLDS, now=at(0))
    assert published.events == {}
    for seconds in (5, 10, 15):
        await replica.update(LOUD, THRESHOLDS, now=at(seconds))
    assert list(published.events.values()) == [(True, 1810.0)]
    await replica.update(QUIET, THRESHOLDS, now=at(30))
    assert published.words == ["raised"]
    for seconds in (31, 36):
        await replica.update(QUIET, THRESHOLDS, now=at(seconds))
    assert list(published.events.values()) == [(True, 1810.0), (False, 10.0)]
    await replica.update(LOUD, THRESHOLDS, now=at(41))
    assert published.words == ["raised", "cleared", "raised"]


async def test_replicas_publish_each_change_once(database: Database) -> None:
    published = Published()
    replicas = [AlarmEvents(database, published.publish) for _ in range(3)]
    for seconds, values in ((0, LOUD), (5, LOUD), (30, QUIET), (35, QUIET)):
        for replica in replicas:
            await replica.update(values, THRESHOLDS, now=at(seconds))
    assert published.words == ["raised", "cleared"]


async def test_an_alarm_that_one_replica_finds_is_raised_however_quiet_the_others_are(database: Database) -> None:
    published = Published()
    one, other = (AlarmEvents(database, published.publish) for _ in range(2))
    for seconds in range(0, 60, 5):
        await one.update(LOUD, THRESHOLDS, now=at(seconds))
        await other.update(QUIET, THRESHOLDS, now=at(seconds + 2))
    assert published.words == ["raised"]


async def test_a_replica_that_died_while_an_alarm_was_raised_leaves_it_to_the_others_to_clear_it(
    database: Database,
) -> None:
    published = Published()
    await AlarmEvents(database, published.publish).update(LOUD, THRESHOLDS, now=at(0))
    await AlarmEvents(database, published.publish).update(QUIET, THRESHOLDS, now=at(16))
    assert published.words == ["raised", "cleared"]


async def test_a_restart_while_an_alarm_is_raised_publishes_nothing_anew(database: Database) -> None:
    published = Published()
    await AlarmEvents(database, published.publish).update(LOUD, THRESHOLDS, now=at(0))
    await AlarmEvents(database, published.publish).update(LOUD, THRESHOLDS, now=at(300))
    assert published.words == ["raised"]


async def test_what_could_not_be_published_is_published_at_the_next_look(database: Database) -> None:
    published = Published(fails=True)
    replica = AlarmEvents(database, published.publish)
    with pytest.raises(DatabaseUnavailable):
        await replica.update(LOUD, THRESHOLDS, now=at(0))
    published.fails = False
    await replica.update(LOUD, THRESHOLDS, now=at(5))
    assert published.words == ["raised"]


async def test_what_was_published_by_a_process_that_died_before_it_could_store_it_has_the_same_id_again(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = Published()
    dying = AlarmEvents(database, published.publish)

    async def die(_statement: object) -> None:
        raise DatabaseUnavailable

    monkeypatch.setattr(dying, "_execute", die)
    with pytest.raises(DatabaseUnavailable):
        await dying.update(LOUD, THRESHOLDS, now=at(0))
    await AlarmEvents(database, published.publish).update(LOUD, THRESHOLDS, now=at(5))
    assert published.words == ["raised"]


async def test_a_webhook_that_asks_for_alarms_is_called_when_one_is_raised_and_when_it_is_cleared(
    database_url: str,
) -> None:
    async with programs(database_url) as room:
        await room.webhook("tests", event_types=["receiver.alarm"])
        await room.record(submit("open", at=room.room.clock.now()))
        room.room.pass_time(minutes=31)
        await room.room.service.alarms.run_once()
        calls = await room.send()
        await room.record(webhook("open", "succeeded", at=room.room.clock.now()))
        room.room.pass_time(seconds=16)
        await room.room.service.alarms.run_once()
        calls += await room.send()
        events = [event for event in map(alarm_of, calls) if event["alarm"] == "silence"]
        assert [(event["raised"], event["value"], event["threshold"]) for event in events] == [
            (True, 1860.0, 1800.0),
            (False, 0.0, 1800.0),
        ]


def alarm_of(call: Heard) -> dict[str, Any]:
    event = json.loads(call.body)
    assert event["type"] == "receiver.alarm"
    assert event["id"] == call.header("webhook-id")
    alarm: dict[str, Any] = event["data"]
    return alarm
