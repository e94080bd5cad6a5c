"""Tables and details for people, in plain text; nothing that came from outside can move their cursor."""

from collections.abc import Iterable, Mapping, Sequence

_NOTHING = "-"


def table(names: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Columns as wide as their widest cell, their names above."""
    lines = [list(names), *([cell(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def details(members: Mapping[str, object]) -> str:
    """One thing, a member a line; what is unknown is left out."""
    told = {name: value for name, value in members.items() if value is not None}
    width = max(map(len, told), default=0)
    return "\n".join(f"{name.ljust(width)}  {cell(value)}" for name, value in told.items())


def cell(value: object) -> str:
    """A value in one line of printable text."""
    if value is None or value == "":
        return _NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return plain(str(value))


def plain(text: str, *, keep: str = "") -> str:
    """`text` without control characters, but for those in `keep`: a terminal would obey them."""
    return "".join(mark if mark.isprintable() or mark in keep else "\N{REPLACEMENT CHARACTER}" for mark in text)
