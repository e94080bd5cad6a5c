"""The plan of every statement of the service with five million generations, and of those that began on empty tables."""

from pathlib import Path

from app.fastpath.settlement import SETTLE
from app.ledger.postgres import LOOK
from bench import driving, servers
from bench.fill import HISTORY, SIZES, SUBMISSIONS, big, fill, fill_history
from bench.plan_log import Statement, explain_all, shortened, statements
from bench.results import Results
from bench.verify import Void
from bench.world import World

GROWN = 100_000
MOST_MILLISECONDS = 20.0
MOST_ROWS = 5000
"""What /metrics counts, and what is moved into the sums of usage at once."""
_LOOK = "SELECT settled_lately"
"""Of the alarms: one statement about everything, for nobody who waits."""
_USAGE = "WITH days AS"
"""Adds up the hours of usage: section `reads` has a bound of its own for it."""
_OF_DELIVERIES = tuple(shortened(statement) for statement in (LOOK, SETTLE))
_TABLE = Path(__file__).resolve().parent / "PLANS.md"


def run(world: World, results: Results) -> None:
    """Raises `Void` where a statement reads a table from end to end."""
    _big(world, results)
    _begun_empty(world, results)


def _big(world: World, results: Results) -> None:
    url = big(world)
    explain_all(url)
    since = len(world.cluster.log())
    with (
        servers.sandbox(core=world.other_core) as rivya,
        servers.registered(url, rivya, core=world.server_core) as ours,
    ):
        driving.write(ours)
        driving.read(ours)
        driving.let_loops_turn()
        driving.operate(servers.registered_environment(url, rivya, port=ours.port))
    with servers.receiver(url, core=world.server_core) as by_hand:
        driving.deliver(by_hand, "plans", 500)
        driving.let_loops_turn()
    by_text = statements(world, since=since)
    world.drop(url)
    _write_table(by_text)
    _refuse_scans(by_text)
    reads = [it for text, it in by_text.items() if text.startswith("SELECT") and not text.startswith(_LOOK)]
    slowest = max(reads, key=lambda it: it.median)
    pages = [it for text, it in by_text.items() if not text.startswith(_USAGE)]
    most = max(pages, key=lambda it: it.rows)
    results.add(
        f"plans of {len(by_text)} statements, {SIZES[-1]:,} generations, {HISTORY:,} deliveries",
        target=f"no sequential scan, each read ≤ {MOST_MILLISECONDS:.0f} ms and of ≤ {MOST_ROWS:,} rows",
        measured=f"none; slowest read {slowest.median:.1f} ms in the middle, most rows {most.rows:,}",
        is_reached=slowest.median <= MOST_MILLISECONDS and most.rows <= MOST_ROWS,
    )
    results.note(f"that slowest read: {slowest.text[:200]}")
    results.note(f"most rows: {most.text[:200]}; every statement and its plan: PLANS.md")


def _begun_empty(world: World, results: Results) -> None:
    """What was planned on empty tables, and is kept by its connection, is said again to tables that have grown."""
    url = world.fresh("postgresql")
    explain_all(url)
    with servers.receiver(url, core=world.server_core) as ours:
        driving.deliver(ours, "empty", 500)
        driving.read(ours)
        began = len(world.cluster.log())
        driving.deliver(ours, "small", 500)
        small = statements(world, since=began)
        fill(url, first=1, last=GROWN)
        fill_history(url, last=GROWN)
        began = len(world.cluster.log())
        driving.deliver(ours, "grown", 500)
        driving.read(ours)
        grown = statements(world, since=began)
    world.drop(url)
    _refuse_scans(grown)
    ratios = {text: grown[text].median / small[text].median for text in _OF_DELIVERIES}
    slower = max(ratios, key=lambda text: ratios[text])
    results.add(
        f"the same connections with {GROWN:,} rows as with none",
        target="no sequential scan, no statement of deliveries 3x slower",
        measured=f"none, at most {ratios[slower]:.2f}x",
        is_reached=ratios[slower] <= 3,
    )


def _refuse_scans(by_text: dict[str, Statement]) -> None:
    scanning = [f"{sorted(it.scanned)}: {it.text[:300]}" for it in by_text.values() if it.scanned]
    if scanning:
        raise Void("read from end to end: " + "; ".join(scanning))


def _write_table(by_text: dict[str, Statement]) -> None:
    rows = "\n".join(_line(it) for it in sorted(by_text.values(), key=lambda it: -it.median))
    _TABLE.write_text(
        f"""# Every statement and its plan

Written by `make bench ONLY=plans`: {SIZES[-1]:,} generations, {HISTORY:,} deliveries, as many transitions, and
{SUBMISSIONS:,} submissions. Milliseconds are PostgreSQL's own, with the plan being recorded. Tables of a few rows are
read from end to end, whatever their indexes.

| ms, in the middle | at most | seen | rows read by one node, at most | read by | statement |
| --- | --- | --- | --- | --- | --- |
{rows}
"""
    )


def _line(it: Statement) -> str:
    text = it.text[:240].replace("|", "¦")
    figures = (f"{it.median:.2f}", f"{max(it.milliseconds):.1f}", f"{len(it.milliseconds)}", f"{it.rows:,}")
    return f"| {' | '.join((*figures, ', '.join(it.nodes)))} | `{text}` |"
