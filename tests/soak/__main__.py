"""The long form of the suite that tries to break every promise: `make soak`, SOAK_MINUTES (30; 3 at least).

Prints a table of faults caused, deliveries sent, answered and recorded; the exit status is 1 if one is missing, doubled
or wrong, or if a part could not run.
"""

import os
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.soak.stages import STAGES
from tests.soak.table import Table
from tests.soak.world import World
from tests.support.databases import PostgresDatabases, SqliteDatabases
from tests.support.postgres import PostgresCluster

LEAST_MINUTES = 3.0


def main() -> int:
    """Run everything; the exit status."""
    minutes = float(os.environ.get("SOAK_MINUTES") or "30")
    if minutes < LEAST_MINUTES:
        sys.stderr.write(f"SOAK_MINUTES={minutes:g}: at least {LEAST_MINUTES:g} are needed to try everything\n")
        return 2
    started, table = time.monotonic(), Table()
    with tempfile.TemporaryDirectory(prefix="receiver-soak-") as name, PostgresCluster() as cluster:
        directory = Path(name)
        world = World(table, directory, PostgresDatabases(cluster), SqliteDatabases(directory), minutes)
        _run(world, until=started + minutes * 60)
    table.end((time.monotonic() - started) / 60)
    return 0 if table.is_clean else 1


def _run(world: World, *, until: float) -> None:
    """Every part, whatever became of those before it; each has its share of what is left."""
    shares = sum(share for share, _ in STAGES.values())
    for name, (share, stage) in STAGES.items():
        seconds = max(until - time.monotonic(), 0.0) * share / shares
        shares -= share
        world.table.note(f"-- {name}: {seconds:.0f} s")
        try:
            stage(world, seconds)
        except Exception as error:  # noqa: BLE001 - the others are to be tried all the same
            traceback.print_exc()
            world.table.add_not_run(name, type(error).__name__)


if __name__ == "__main__":
    sys.exit(main())
