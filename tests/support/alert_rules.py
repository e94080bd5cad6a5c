"""The alert rules as Prometheus would take them, and whether one holds for a page of /metrics."""

import operator
import re
from dataclasses import dataclass
from typing import Any

import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.support.deployment import ROOT

# The part of PromQL that the rules use: a number compared with the largest or smallest sample of a selector.
EXPRESSION = re.compile(
    r"(?P<since>time\(\) - )?(?P<fold>max|min) by \(instance\) "
    r"\((?P<metric>[a-z_]+)(\{(?P<labels>[^}]*)\})?\) (?P<sign>[<>]) (?P<limit>\d+)"
)
ALERTS_FILE = ROOT / "deploy" / "prometheus" / "alerts.yml"
ABOUT_SCRAPING = {"RivyaReceiverDown", "RivyaReceiverAbsent"}
"""Rules about what Prometheus itself knows."""
_LABEL = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True)
class Rule:
    """An alert rule."""

    alert: str
    expr: str
    raw: dict[str, Any]

    @property
    def metric(self) -> str:
        return str(self._parts["metric"])

    def holds(self, metrics: str, *, now: float = 0.0) -> bool:
        """Whether the rule's condition is true of this page, at `now` in Unix seconds."""
        parts = self._parts
        wanted = dict(_LABEL.findall(parts["labels"] or ""))
        samples = [
            sample.value
            for family in text_string_to_metric_families(metrics)
            for sample in family.samples
            if sample.name == self.metric and wanted.items() <= sample.labels.items()
        ]
        if not samples:
            return False
        value = max(samples) if parts["fold"] == "max" else min(samples)
        compare = operator.gt if parts["sign"] == ">" else operator.lt
        return bool(compare(now - value if parts["since"] else value, float(parts["limit"])))

    @property
    def _parts(self) -> dict[str, str]:
        match = EXPRESSION.fullmatch(self.expr)
        assert match is not None, f"not understood: {self.expr}"
        return match.groupdict()


def rules() -> dict[str, Rule]:
    """Every rule about our own metrics, by its name."""
    [group] = yaml.safe_load(ALERTS_FILE.read_text())["groups"]
    rules = [Rule(raw["alert"], raw["expr"], raw) for raw in group["rules"]]
    return {rule.alert: rule for rule in rules if rule.alert not in ABOUT_SCRAPING}
