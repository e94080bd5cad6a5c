"""The soak's account: what is missing or doubled is seen, and a part that did not run is no better than broken."""

import time
from collections import Counter
from pathlib import Path

import pytest

from tests.soak.stages import STAGES
from tests.soak.table import Table
from tests.support import run_counts
from tests.support.run_counts import RunCounts, compared, counted, is_over, note, read


def test_an_answered_delivery_that_is_not_recorded_is_missing_and_one_recorded_more_often_than_sent_doubled() -> None:
    sent, accepted = Counter(a=2, b=1, c=1), Counter(a=1, b=1)
    assert compared(sent, accepted, {"a": 2, "b": 1, "c": 1}) == ([], [])
    missing, _ = compared(sent, accepted, {"a": 2})
    assert missing == ["b: answered 2xx 1 times, recorded 0"]
    _, doubled = compared(sent, accepted, {"a": 2, "b": 2, "d": 1})
    assert doubled == ["b: sent 1 times, recorded 2", "d: sent 0 times, recorded 1"]


def test_what_is_found_is_written_down_before_the_test_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(run_counts.COUNTS_PATH, str(tmp_path / "counts"))
    note(RunCounts(faults=1, sent=2, answered=1, recorded=1))
    with pytest.raises(AssertionError, match="a: answered"):
        counted(Counter(a=1), Counter(a=1), {}, faults=3)
    assert read(tmp_path / "counts") == RunCounts(faults=4, sent=3, answered=2, recorded=1, missing=1)


def test_time_is_up_only_where_something_was_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_counts, "_noted", [])
    monkeypatch.setattr(run_counts, "_began", [time.monotonic() - 10])
    monkeypatch.setenv(run_counts.SECONDS, "9")
    monkeypatch.setenv(run_counts.COUNTS_PATH, str(tmp_path / "counts"))
    assert not is_over()
    note(RunCounts())
    assert is_over()


@pytest.mark.parametrize("how", ["lost", "slow", "not run"])
def test_one_line_that_is_not_well_breaks_the_table(how: str) -> None:
    table = Table()
    table.add("well", RunCounts(faults=1, sent=1, answered=1, recorded=1))
    assert table.is_clean
    if how == "not run":
        table.add_not_run("late", "TimeoutError")
    else:
        table.add(how, RunCounts(missing=how == "lost"), is_clean=how != "slow")
    table.add("well again", RunCounts())
    assert not table.is_clean


def test_the_shares_of_the_time_are_all_of_it() -> None:
    assert sum(share for share, _ in STAGES.values()) == pytest.approx(1)
