"""Processor time of `--help` and of a start, each compared with an interpreter that only imports the same libraries."""

import resource
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from app.cli import UNUSED
from bench import servers
from bench.results import Results, spread
from bench.world import World

PAIRS = 7
HELP_LIMIT = 1.5
START_LIMIT = 1.3
_COMMAND = str(Path(sys.executable).with_name("rivya-receiver"))
_HIDE = f"""
import importlib, sys
sys.modules.update(dict.fromkeys({UNUSED}))
"""
_LIBRARIES = f"""{_HIDE}
import app.cli.server
own = {{"app", "migrations", *sys.stdlib_module_names}}
loaded = [name for name, module in sys.modules.items() if module is not None]
print(*[name for name in loaded if name.partition(".")[0] not in own and not name.startswith("_")])
"""
_IMPORT = f"{_HIDE}\nfor name in sys.argv[1:]: importlib.import_module(name)"


def run(world: World, results: Results) -> None:
    """Each figure is the median of the ratios of pairs that ran one after the other."""
    _help(results)
    _start(world, results)


def _help(results: Results) -> None:
    ours, typers = [_COMMAND, "--help"], [sys.executable, "-c", "import typer"]
    pairs = [(_processor_seconds(ours), _processor_seconds(typers)) for _ in range(PAIRS + 1)]
    _report("rivya-receiver --help, against importing typer", pairs[1:], HELP_LIMIT, results)


def _start(world: World, results: Results) -> None:
    names = subprocess.run(
        [sys.executable, "-c", _LIBRARIES], check=True, capture_output=True, text=True
    ).stdout.split()
    libraries = [sys.executable, "-c", _IMPORT, *names]
    url = world.fresh("postgresql")
    pairs = []
    for _ in range(PAIRS + 1):
        with servers.receiver(url, core=world.server_core) as ours:
            seconds = ours.processor_seconds_to_live
        pairs.append((seconds, _processor_seconds(libraries)))
    world.drop(url)
    _report("first /livez after a start, against importing the same libraries", pairs[1:], START_LIMIT, results)


def _report(what: str, pairs: Sequence[tuple[float, float]], limit: float, results: Results) -> None:
    """The first pair is not among `pairs`: it may have compiled modules or migrated the database."""
    ratios = [ours / theirs for ours, theirs in pairs]
    milliseconds = [ours * 1000 for ours, _ in pairs]
    results.add(
        f"{what}: processor time",
        target=f"≤ {limit}x",
        measured=f"{spread(ratios, '.2f')}x, {spread(milliseconds, '.0f')} ms",
        is_reached=statistics.median(ratios) <= limit,
    )


def _processor_seconds(command: Sequence[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
