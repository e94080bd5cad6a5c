"""The bench and the soak, which run rarely, still fit what they measure: their modules, their tables, their files."""

import asyncio
import importlib

import pytest

from bench import lists
from bench.__main__ import ON_DEMAND, SECTIONS
from bench.fill import fill, fill_history, fill_open
from bench.results import Results
from tests.soak.stages import ATTACKS, DATABASES, LYING, OTHER_FAULTS, POINTS, PROPERTIES
from tests.support.deployment import ROOT

ROWS = 3000


@pytest.mark.parametrize("package", ["bench", "tests.soak"])
def test_every_module_can_be_imported(package: str) -> None:
    paths = sorted((ROOT / package.replace(".", "/")).glob("*.py"))
    assert len(paths) > 10
    for path in paths:
        importlib.import_module(f"{package}.{path.stem}")


def test_the_bench_has_its_sections() -> None:
    assert {"intake", "reads", "plans", "profile"} <= {*SECTIONS, *ON_DEMAND}


def test_every_file_that_the_soak_runs_exists() -> None:
    for path in (*ATTACKS, *DATABASES, *LYING, *POINTS, *PROPERTIES, *OTHER_FAULTS):
        assert (ROOT / path).is_file(), path
    assert OTHER_FAULTS


async def test_the_lists_of_a_filled_database_are_measured(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "TIMES", 1)
    monkeypatch.setattr(lists, "MOST_TOGETHER", 1)
    monkeypatch.setattr(lists, "MOST_MILLISECONDS", float("inf"))
    results = Results()
    await asyncio.to_thread(fill, postgres_url, first=1, last=ROWS)
    await asyncio.to_thread(fill_history, postgres_url, last=ROWS)
    await asyncio.to_thread(lists.measure, postgres_url, results)
    assert len(results.figures) == 6
    assert all(figure.is_reached for figure in results.figures if "page of" in figure.what)


async def test_open_generations_are_filled_in_on_either_database(database_url: str) -> None:
    await asyncio.to_thread(fill_open, database_url, first=1, last=10)
    await asyncio.to_thread(fill, database_url, first=11, last=200)
