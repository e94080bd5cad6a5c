"""The long form of the suite that tries to break every promise: `make soak`, SOAK_MINUTES (30).

Prints a table of faults caused, deliveries sent, answered and found; the exit status is 1 if one is missing, doubled or
wrong.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from app.core.migrations import migrate
from tests.databases import PostgresDatabases, SqliteDatabases
from tests.faults.failing import failing
from tests.lifeline import zygote
from tests.postgres import PostgresCluster
from tests.soak.flooding import flood
from tests.soak.fuzzing import MOST_SECONDS, fuzz
from tests.soak.killing import Outcome, kill_under_load

KILLS_PER_ROUND = 25
LEAST_KILLS = 100
CASES = 1_000_000
CASES_PER_MINUTE = 200_000
FLOOD_RATE = 10_000
LONG_TESTS = (
    "tests/faults",
    "tests/unit/test_signature_properties.py",
    "tests/flow/test_intake_any_bytes.py",
    "tests/flow/test_lanes_differ_in_nothing.py",
    "tests/contract/test_openapi_conformance.py",
)


@dataclass
class Table:
    """One line for each round, and whether every promise was kept."""

    lines: list[str] = field(default_factory=list)
    is_clean: bool = True

    def add(self, name: str, text: str, *, is_clean: bool) -> None:
        """One more line, printed as it comes."""
        self.is_clean &= is_clean
        self.lines.append(f"{name:<22} {text}  {'ok' if is_clean else 'BROKEN'}")
        _say(self.lines[-1])

    def add_kills(self, name: str, outcome: Outcome) -> None:
        """A round of kills."""
        account, verdict = outcome.account, outcome.verdict
        sent, accepted = sum(account.sent.values()), sum(account.accepted.values())
        text = (
            f"kills {outcome.kills}  deliveries: sent {sent} answered {accepted} found {verdict.found}  creates sent"
            f" {len(account.keys)} answered {len(account.created)} paid {verdict.charged}  reads {account.reads}  polls"
            f" {outcome.polls}  missing {len(verdict.missing)} doubled {len(verdict.doubled)}"
            f" wrong {len(verdict.wrong)}"
        )
        self.add(name, text, is_clean=verdict.is_clean)
        for what in (*verdict.missing, *verdict.doubled, *verdict.wrong)[:20]:
            _say(f"    {what}")


def main() -> int:
    """Run everything; the exit status."""
    minutes = float(os.environ.get("SOAK_MINUTES", "30"))
    started, table = time.monotonic(), Table()
    with tempfile.TemporaryDirectory() as name, PostgresCluster() as cluster:
        directory = Path(name)
        databases = PostgresDatabases(cluster), SqliteDatabases(directory)
        _kill(table, databases, directory, until=started + minutes * 60 * 0.6)
        _flood(table, directory, seconds=min(30.0, minutes * 6))
    _fuzz(table, cases=int(max(CASES, minutes * CASES_PER_MINUTE / 6) if minutes >= 5 else minutes * CASES_PER_MINUTE))
    _run_tests(table)
    _say(f"\n{(time.monotonic() - started) / 60:.1f} minutes:", *table.lines, sep="\n")
    _say("every promise was kept" if table.is_clean else "A PROMISE WAS BROKEN")
    return 0 if table.is_clean else 1


def _kill(table: Table, databases: tuple[PostgresDatabases, SqliteDatabases], directory: Path, *, until: float) -> None:
    kills = seed = 0
    while time.monotonic() < until or (kills < LEAST_KILLS and time.monotonic() < until + 300):
        seed += 1
        for kind, source, size in (("postgresql", databases[0], 2), ("sqlite", databases[1], 1)):
            url, logs = source.migrated(), directory / f"{kind}-{seed}"
            logs.mkdir()
            # Now and then leases run out by themselves, as they would; else what they held is due at once.
            outcome = asyncio.run(_killed(url, logs, size=size, seed=seed, has_time=seed % 4 == 0))
            table.add_kills(f"killed, {kind}", outcome)
            kills += outcome.kills
            source.drop(url)


async def _killed(url: str, directory: Path, *, size: int, seed: int, has_time: bool) -> Outcome:
    async with zygote() as parent:
        return await kill_under_load(
            parent, url, directory, size=size, kills=KILLS_PER_ROUND, seed=seed, has_time=has_time
        )


def _flood(table: Table, directory: Path, *, seconds: float) -> None:
    async def run() -> None:
        url = f"sqlite+aiosqlite:///{directory / 'flood.db'}"
        await migrate(url)
        async with failing(url, directory) as service:
            await service.recovered()
            made = await flood(service, seconds=seconds, rate=FLOOD_RATE)
        text = (
            f"forged {made.forged} in {made.seconds:.0f} s ({made.rate:.0f}/s)  real {len(made.real)} refused"
            f" {made.refused} p50 {made.percentile(0.5):.0f} ms p99 {made.percentile(0.99):.0f} ms"
        )
        table.add("forged flood", text, is_clean=made.refused == 0)

    asyncio.run(run())


def _fuzz(table: Table, *, cases: int) -> None:
    made = fuzz(cases, seed=int(time.time()))
    text = (
        f"cases {made.cases} ({made.rate:.0f}/s, {made.kept} kept for new paths)  accepted {made.accepted} wrongly"
        f" {made.wrongly}  slowest took {made.slowest:.0%} of its {MOST_SECONDS * 1000:.0f} ms per 64 KiB"
    )
    table.add("fuzzed intake", text, is_clean=made.wrongly == 0 and made.slowest < 1)


def _run_tests(table: Table) -> None:
    """The faults of the quick form, with many more examples where Hypothesis finds them."""
    command = [sys.executable, "-m", "pytest", "-q", *LONG_TESTS]
    done = subprocess.run(command, env={**os.environ, "HYPOTHESIS_PROFILE": "soak"}, check=False)
    table.add("faults, many examples", f"pytest {' '.join(LONG_TESTS)}", is_clean=done.returncode == 0)


def _say(*words: str, sep: str = " ") -> None:
    sys.stdout.write(sep.join(words) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
