"""The alert rules are what Prometheus takes, speak of metrics that exist, and there is one for each alarm."""

import re

import pytest

from app.operations.alarms import Alarm
from tests.support.alert_rules import EXPRESSION, Rule, rules
from tests.support.service_harness import ALERTS, open_service

AWAY = "postgresql+asyncpg://nobody@127.0.0.1:1/none"
_DURATION = re.compile(r"[1-9]\d*[smhd]")


@pytest.mark.parametrize("rule", rules().values(), ids=lambda rule: rule.alert)
def test_each_rule_has_what_prometheus_wants_of_it(rule: Rule) -> None:
    assert set(rule.raw) == {"alert", "expr", "for", "labels", "annotations"}
    assert re.fullmatch(r"[A-Z]\w+", rule.alert)
    assert EXPRESSION.fullmatch(rule.expr)
    assert _DURATION.fullmatch(rule.raw["for"])
    assert rule.raw["labels"]["severity"] in {"warning", "critical"}
    assert rule.raw["annotations"]["summary"].endswith(".")


def test_there_is_a_rule_for_each_alarm() -> None:
    assert ALERTS.keys() == set(Alarm)
    assert {f'max by (instance) (receiver_alarm{{alarm="{alarm}"}}) > 0' for alarm in Alarm} <= {
        rule.expr for rule in rules().values()
    }


async def test_the_rules_speak_of_metrics_that_exist_and_are_quiet_at_first(sqlite_url: str) -> None:
    async with open_service(sqlite_url) as room:
        await room.service.alarms.run_once()
        page = (await room.client.get("/metrics")).text
        for rule in rules().values():
            assert re.search(rf"^{rule.metric}[ {{]", page, flags=re.MULTILINE), rule.alert
            assert not rule.holds(page, now=room.clock.now().timestamp()), rule.alert


async def test_a_database_that_is_away_is_alerted() -> None:
    async with open_service(AWAY) as room:
        assert rules()["RivyaReceiverDatabaseDown"].holds((await room.client.get("/metrics")).text)


async def test_a_watch_that_has_stopped_is_alerted(sqlite_url: str) -> None:
    async with open_service(sqlite_url) as room:
        await room.service.alarms.run_once()
        room.pass_time(seconds=61)
        page = (await room.client.get("/metrics")).text
        assert rules()["RivyaReceiverWatchStopped"].holds(page, now=room.clock.now().timestamp())
