"""`python -m bench [SECTION]`: runs every section, or the one that is named, and writes what was measured."""

import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from bench import intake, plans, polling, pressure, profile, reads, retention, snapshot, start, waiting
from bench.report import with_figures, written
from bench.results import Results
from bench.world import World, made_world, postgres_version

SECTIONS: dict[str, Callable[[World, Results], None]] = {
    "intake": intake.run,
    "reads": reads.run,
    "plans": plans.run,
    "snapshot": snapshot.run,
    "waiting": waiting.run,
    "polling": polling.run,
    "pressure": pressure.run,
    "start": start.run,
}
ON_DEMAND: dict[str, Callable[[World, Results], None]] = {
    "profile": profile.run,
    "retention": retention.run,
}
"""Figures for decisions of an operator, not for a release: they run when they are named."""
_HERE = Path(__file__).resolve().parent
_DOCUMENT = _HERE.parent / "docs" / "performance.md"
"""Holds the table of figures, too."""


def main(chosen: str | None) -> int:
    """The exit status: 0 all that must be reached was; 1 something was not, or is void; 2 there is no such section."""
    sections = {**SECTIONS, **ON_DEMAND} if chosen else SECTIONS
    if chosen and chosen not in sections:
        print(f"ONLY={chosen}: there is no such section; there are {', '.join(sections)}")
        return 2
    results, started = Results(), time.perf_counter()
    with made_world() as world:
        version = postgres_version(world.fresh("postgresql"))
        for name, section in sections.items():
            if chosen in (None, "", name):
                began = time.perf_counter()
                try:
                    section(world, results)
                except Exception as error:  # noqa: BLE001 - one section must not lose the figures of the others
                    traceback.print_exc()
                    measured = " ".join(f"void: {type(error).__name__} {error}".replace("|", "¦").split())[:300]
                    results.add(f"section {name}", target="runs", measured=measured, is_reached=False)
                results.note(f"(section {name} took {time.perf_counter() - began:.0f} s)")
    text = written(results, version=version, seconds=time.perf_counter() - started)
    if chosen:
        print(text)
    else:
        (_HERE / "RESULTS.md").write_text(text)
        _DOCUMENT.write_text(with_figures(_DOCUMENT.read_text(), results))
    missed = [figure.what for figure in results.figures if not figure.is_reached]
    print("\n".join(f"not reached: {what}" for what in missed) or "all reached")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else None))
