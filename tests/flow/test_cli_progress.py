"""While one waits a line tells how it stands: rewritten on a terminal, written once for each change elsewhere."""

import io

import pytest

from app.cli.client.watch import progress_on


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")


def test_on_a_terminal_one_line_is_rewritten_and_taken_away_at_the_end() -> None:
    out = Terminal()
    with progress_on(out) as show:
        show("task_1: queued")
        show("task_1: [red]processing, \x1b[31mand many words more than fit")
        lines = out.getvalue().split("\x1b[2K")
    assert any(line.startswith("task_1: queued ") and "0:00:0" in line for line in lines)
    assert lines[-1].startswith("task_1: [red]processing, \N{REPLACEMENT CHARACTER}")
    assert "\n" not in out.getvalue().removesuffix("\n\x1b[?25h\r\x1b[1A\x1b[2K"), "one line, however long the text"
    assert out.getvalue().endswith("\x1b[2K")


@pytest.mark.parametrize("kind", [io.StringIO, Terminal])
def test_elsewhere_each_change_is_a_line_and_nothing_is_taken_away(
    monkeypatch: pytest.MonkeyPatch, kind: type[io.StringIO]
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    out = kind()
    with progress_on(out) as show:
        for text in ("task_1: queued", "task_1: queued", f"task_1: \x1b[31mprocessing, {'long ' * 20}"):
            show(text)
    assert out.getvalue() == f"task_1: queued\ntask_1: \N{REPLACEMENT CHARACTER}[31mprocessing, {'long ' * 20}\n"
