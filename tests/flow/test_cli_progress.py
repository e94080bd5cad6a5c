"""While one waits a line tells how it stands: rewritten on a terminal, written once for each change elsewhere."""

import io

from app.cli.client.watch import Progress

CLEAR = "\r\x1b[K"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_one_line_is_rewritten_and_taken_away_at_the_end() -> None:
    seconds = iter([10.0, 10.0, 13.2])
    out = Terminal()
    progress = Progress(out, lambda: next(seconds))
    progress.tell("task_1: queued")
    progress.tell("task_1: queued")
    progress.tell("task_1: processing")
    progress.clear()
    assert out.getvalue() == f"{CLEAR}task_1: queued, 0 s{CLEAR}task_1: processing, 3 s{CLEAR}"


def test_elsewhere_each_change_is_a_line_and_nothing_is_taken_away() -> None:
    out = io.StringIO()
    progress = Progress(out, lambda: 0.0)
    for text in ("task_1: queued", "task_1: queued", "task_1: \x1b[31mprocessing"):
        progress.tell(text)
    progress.clear()
    assert out.getvalue() == "task_1: queued\ntask_1: \N{REPLACEMENT CHARACTER}[31mprocessing\n"
