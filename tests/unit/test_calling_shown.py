"""What people are shown: aligned, complete where something is known, harmless whatever it holds."""

import pytest

from app.cli.client import output
from app.cli.client.output import cell, details, plain, table


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert table(("A", "LONG NAME"), [("value", 1), ("v", None)]) == "A      LONG NAME\nvalue  1\nv      -"
    assert table(("A", "B"), []) == "A  B"


def test_details_leave_out_what_is_unknown() -> None:
    assert details({"id": "x", "missing": None, "longer": 2.5}) == "id      x\nlonger  2.5"
    assert details({}) == ""


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), ("", "-"), (True, "yes"), (False, "no"), (2.0, "2"), (2.5, "2.5"), (7, "7")]
)
def test_a_cell_is_short(value: object, text: str) -> None:
    assert cell(value) == text


def test_nothing_from_outside_commands_the_terminal() -> None:
    assert "\x1b" not in cell("\x1b]0;title\x07\n")
    assert plain("a\nb\x1b[2J", keep="\n") == "a\nb\N{REPLACEMENT CHARACTER}[2J"


def test_a_generation_is_shown_with_its_results_and_whose_it_is() -> None:
    generation = {
        "id": "task_1",
        "status": "succeeded",
        "final_credits": 1,
        "reserved_credits": 2,
        "result": {"urls": ["https://a", "https://b"]},
        "tracking": {"submitted_by": "shop"},
    }
    assert output.generation(generation) == (
        "generation    task_1\nstatus        succeeded\ncredits       1\nsubmitted by  shop\n"
        "result 1      https://a\nresult 2      https://b"
    )


def test_a_failed_generation_says_why() -> None:
    generation = {"id": "task_1", "error": {"code": "generation_failed", "message": "No."}, "result": None}
    assert output.generation(generation) == "generation  task_1\nerror       generation_failed: No."
    assert output.generation({"id": "task_1", "result": {"urls": None}}) == "generation  task_1"


def test_lists_are_tables_also_of_what_rivya_itself_tells() -> None:
    ours = {"id": "g1", "status": "queued", "reserved_credits": 1.0, "tracking": {"first_seen_at": "now"}}
    theirs = {"id": "g2", "status": "failed", "final_credits": 0, "created_at": "then"}
    lines = output.generations({"data": [ours, theirs, "odd"]}).splitlines()
    assert [line.split() for line in lines[1:]] == [
        ["g1", "queued", "-", "-", "1", "reserved", "now", "-"],
        ["g2", "failed", "-", "-", "0", "then", "-"],
    ]


def test_models_usage_and_files_are_shown_by_their_documented_members() -> None:
    assert output.models({"data": [{"id": "m", "category": "chat", "new": 1}]}).splitlines()[1].split() == [
        *("m", "-", "chat", "-", "-")
    ]
    assert output.models({"data": None}).splitlines() == ["MODEL  NAME  CATEGORY  CREDITS  STATUS"]
    assert "shop" in output.usage({"data": [{"day": "2026-05-10", "submitted_by": "shop"}]})
    assert output.file({"file_id": "f", "nested": {}, "size": 1, "none": None}) == "file_id  f\nsize     1"
