"""Reads the plans that PostgreSQL's auto_explain wrote: which statement, by which nodes, on which tables, how long."""

import re
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from bench.world import World, on_postgres

SMALL = 1000
"""A table of fewer rows is read from end to end, and should be."""

_WRITTEN = re.compile(r"duration: ([\d.]+) ms  plan:\n((?:\t.*\n)+)")
_SETTINGS = {
    "session_preload_libraries": "auto_explain",
    "auto_explain.log_min_duration": "0",
    "auto_explain.log_analyze": "on",
    "auto_explain.log_timing": "off",
    "auto_explain.log_format": "json",
    "auto_explain.log_nested_statements": "on",
}


@dataclass(slots=True)
class Statement:
    """All that was seen of one statement."""

    text: str
    milliseconds: list[float] = field(default_factory=list)
    nodes: dict[str, None] = field(default_factory=dict)
    """Types of nodes with what they read, in the order of their first sight."""
    scanned: set[str] = field(default_factory=set)
    """Tables read from end to end that were not small."""
    rows: int = 0
    """That one node read at most, those included that it left out again."""

    @property
    def median(self) -> float:
        """Milliseconds."""
        return statistics.median(self.milliseconds)


def explain_all(url: str) -> None:
    """Have every statement of later sessions in this database explained as it is run."""
    name = url.rpartition("/")[2]

    async def act(connection: Any) -> None:  # noqa: ANN401 - asyncpg tells no types
        await connection.execute("LOAD 'auto_explain'")
        for setting, value in _SETTINGS.items():
            await connection.execute(f"ALTER DATABASE \"{name}\" SET {setting} = '{value}'")

    on_postgres(url, act)


def statements(world: World, *, since: int) -> dict[str, Statement]:
    """What was run since the log had `since` characters, by its text with numbers and strings left out."""
    by_text: dict[str, Statement] = {}
    for milliseconds, text, plan in _entries(world.cluster.log()[since:]):
        statement = by_text.setdefault(text, Statement(text))
        statement.milliseconds.append(milliseconds)
        for node in _nodes(plan):
            read = node.get("Index Name") or node.get("Relation Name") or ""
            kind = f"{node['Node Type']} {read}".strip()
            statement.nodes[kind] = None
            if "Actual Rows" not in node:
                continue  # never got to it
            rows = round((node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"])
            statement.rows = max(statement.rows, rows)
            if node["Node Type"] == "Seq Scan" and rows >= SMALL:
                statement.scanned.add(node["Relation Name"])
    return by_text


def _entries(log: str) -> Iterator[tuple[float, str, dict[str, Any]]]:
    for written in _WRITTEN.finditer(log):
        explained = orjson.loads(written[2].replace("\n\t", "\n").encode())
        yield float(written[1]), shortened(explained["Query Text"]), explained["Plan"]


def shortened(text: str) -> str:
    """A statement in one line, without what tells its like apart, as the keys of `statements` are."""
    text = re.sub(r"\s+", " ", text)
    text = re.sub(r"'[0-9a-f-]{36}'", "'…'", text)
    return re.sub(r"SELECT (\w+\.\w+(?: AS \w+)?, ){3,}.*? FROM", "SELECT … FROM", text).strip()


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from _nodes(part)
