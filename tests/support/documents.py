"""What the documents show: their blocks of code, tables and sections."""

import re
from pathlib import Path

from tests.support.deployment import ROOT

DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]


def read(name: str) -> str:
    """The text of a document, by its path in the repository."""
    return (ROOT / name).read_text()


def section(name: str, heading: str) -> str:
    """The text below a heading, up to the next one of its level or above. Raises AssertionError without it."""
    _, separator, rest = read(name).partition(f"\n{heading}\n")
    assert separator, f"{name} has no {heading!r}"
    ends = re.compile(rf"#{{1,{heading.index(' ')}}} ")
    lines: list[str] = []
    is_code = False
    for line in rest.splitlines():
        is_code = is_code != line.startswith("```")  # a comment of a shell block is no heading
        if not is_code and ends.match(line):
            break
        lines.append(line)
    return "\n".join(lines)


def blocks(text: str, language: str) -> list[str]:
    """The blocks of code in this language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands(path: Path) -> list[str]:
    """Every command that a document's shell blocks show, continued lines joined, without comments and prompts."""
    lines = "\n".join(blocks(path.read_text(), "sh")).replace("\\\n", " ").splitlines()
    shown = [re.sub(r"\s+# .*", "", line).strip() for line in lines]
    return [line for line in shown if line and not line.startswith("#")]
