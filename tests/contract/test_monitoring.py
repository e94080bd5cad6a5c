"""Prometheus' own tool accepts our metrics and rules, and the dashboard asks for metrics that exist."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.alert_rules import ALERTS_FILE
from tests.support.deployment import ROOT
from tests.support.receivers import TOKEN
from tests.support.service_harness import open_service

DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "rivya-receiver.json").read_text())


def promtool(*words: str, text: str = "") -> str:
    """What `promtool` writes. Fails with that if it finds a fault."""
    program = shutil.which("promtool")
    assert program is not None, "the tests need promtool (Debian: prometheus)"
    ended = subprocess.run([program, *words], input=text, check=False, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


async def metrics_page(sqlite_url: str) -> str:
    async with open_service(sqlite_url) as room:
        await room.service.alarms.run_once()
        headers = {"Authorization": f"Bearer {TOKEN}"}
        await room.client.get("/api/v1/generations/task_of_nobody", headers=headers)
        return (await room.client.get("/metrics", headers=headers)).text


async def test_promtool_finds_nothing_wrong_with_the_metrics(sqlite_url: str) -> None:
    assert promtool("check", "metrics", text=await metrics_page(sqlite_url)) == ""


async def test_labels_are_plain_and_requests_are_timed_by_route(sqlite_url: str) -> None:
    page = await metrics_page(sqlite_url)
    labels = re.findall(r'\w+="((?:[^"\\]|\\.)*)"', page)
    assert labels
    assert [label for label in labels if not re.fullmatch(r"[\w/{}.+-]*", label)] == []
    assert 'receiver_http_request_seconds_count{route="/api/v1/generations/{generation_id}"} ' in page
    assert re.search(r'^receiver_build_info\{python="3\.[\d.]+",version="[\d.]+"\} 1\.0$', page, re.MULTILINE)


def test_promtool_accepts_the_rules() -> None:
    assert "SUCCESS" in promtool("check", "rules", str(ALERTS_FILE))


def test_an_alert_names_the_replica_and_one_environment_does_not_hide_another(tmp_path: Path) -> None:
    def series(name: str, values: str) -> dict[str, str]:
        return {"series": name, "values": values}

    down = {"instance": "production:9090", "severity": "critical"}
    replicas = [
        series('receiver_database_up{instance="staging:9090"}', "1x10"),
        series('receiver_database_up{instance="production:9090"}', "0x10"),
        series('up{job="rivya-receiver", instance="production:9090"}', "1x10"),
    ]
    tests = [
        _rule_test(replicas, "RivyaReceiverDatabaseDown", [down]),
        _rule_test(replicas, "RivyaReceiverAbsent", []),
        _rule_test([], "RivyaReceiverAbsent", [{"job": "rivya-receiver", "severity": "critical"}]),
        _rule_test(
            [series('up{job="rivya-receiver", instance="a"}', "0x10")],
            "RivyaReceiverDown",
            [{"job": "rivya-receiver", "instance": "a", "severity": "critical"}],
        ),
    ]
    file = tmp_path / "tests.yml"
    file.write_text(yaml.safe_dump({"rule_files": [str(ALERTS_FILE)], "tests": tests}))
    assert "SUCCESS" in promtool("test", "rules", str(file))


def _rule_test(series: list[dict[str, str]], alert: str, labels: list[dict[str, str]]) -> dict[str, Any]:
    [group] = yaml.safe_load(ALERTS_FILE.read_text())["groups"]
    [annotations] = [rule["annotations"] for rule in group["rules"] if rule["alert"] == alert]
    expected = [{"exp_labels": each, "exp_annotations": annotations} for each in labels]
    check = {"eval_time": "8m", "alertname": alert, "exp_alerts": expected}
    return {"interval": "1m", "input_series": series, "alert_rule_test": [check]}


def test_every_runbook_link_leads_to_a_heading() -> None:
    [group] = yaml.safe_load(ALERTS_FILE.read_text())["groups"]
    for rule in group["rules"]:
        name, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        headings = re.findall(r"^#+ (.*)$", (ROOT / name).read_text(), re.MULTILINE)
        assert anchor in {heading.lower().replace(" ", "-") for heading in headings}


def queries() -> Iterator[tuple[str, str]]:
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], re.sub(r"^label_values\((.*), \w+\)$", r"\1", variable["query"])


async def test_the_dashboard_asks_for_metrics_and_labels_that_exist(sqlite_url: str) -> None:
    page = await metrics_page(sqlite_url)
    exported = {name for name, _ in re.findall(r"^# TYPE (\S+) (\S+)$", page, re.MULTILINE)}
    exported |= {
        f"{name}_bucket"
        for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", page, re.MULTILINE)
        if kind == "histogram"
    }
    asked = {name for _, expression in queries() for name in re.findall(r"\b(?:receiver|process)_\w+", expression)}
    assert len(asked) > 15
    assert asked - exported == set()


@pytest.mark.parametrize(("title", "expression"), list(queries()), ids=lambda text: text[:40])
def test_promtool_understands_each_query_of_the_dashboard(tmp_path: Path, title: str, expression: str) -> None:
    written = expression.replace("$__rate_interval", "5m")
    rules = {"groups": [{"name": title, "rules": [{"record": "a:query:of_the_dashboard", "expr": written}]}]}
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump(rules))
    promtool("check", "rules", str(file))
