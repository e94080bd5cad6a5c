"""RESULTS.md: the machine, the figures with their targets, and what has to be said beside them."""

from datetime import UTC, datetime

from bench.machine import description
from bench.results import Results

_BEGIN = "<!-- what `make bench` measured -->"
_END = "<!-- end -->"


def written(results: Results, *, version: str, seconds: float) -> str:
    """As Markdown."""
    machine = "\n".join(f"- {line}" for line in description(version))
    notes = "\n".join(f"- {note}" for note in results.notes)
    return f"""# What it can take

Written by `make bench` on {datetime.now(UTC):%Y-%m-%d}, in {seconds / 60:.0f} minutes. One server process on one core;
the load generator and PostgreSQL (fsync on, synchronous_commit on, defaults otherwise) share the other. The bare
uvicorn serves an ASGI application that reads the body and answers 204; it is measured right before and after each run,
with 64 connections. Figures are medians, with the least and the greatest in brackets. Everything that was answered 200
was found in the database exactly once, or the run would be void.

{machine}

{_table(results)}

{notes}
"""


def with_figures(document: str, results: Results) -> str:
    """A document whose part between the two markers is the table of figures."""
    before, rest = document.split(_BEGIN)
    return f"{before}{_BEGIN}\n\n{_table(results)}\n\n{_END}{rest.split(_END)[1]}"


def _table(results: Results) -> str:
    lines = (
        f"| {it.what} | {it.target} | {it.measured} | {'yes' if it.is_reached else '**no**'} |"
        for it in results.figures
    )
    return "\n".join(("| what | must reach | measured | reached |", "| --- | --- | --- | --- |", *lines))
