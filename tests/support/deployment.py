"""The files that a deployment is made of, read as data."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
_SETTING = re.compile(r"(?P<commented>#?)(?P<name>[A-Z][A-Z_]+)=(?P<value>.*)")


@dataclass(frozen=True)
class Instruction:
    """One instruction of a Dockerfile: `RUN`, and what follows it."""

    word: str
    rest: str

    @property
    def words(self) -> list[str]:
        """The rest as a list, written as JSON (`["a", "b"]`)."""
        return list(json.loads(self.rest))


def dockerfile() -> list[Instruction]:
    """Every instruction, in order, continued lines joined."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [Instruction(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines)]


def final_stage() -> dict[str, Instruction]:
    """The last instruction of each word in the stage that is shipped."""
    instructions = dockerfile()
    start = max(number for number, instruction in enumerate(instructions) if instruction.word == "FROM")
    return {instruction.word: instruction for instruction in instructions[start:]}


def compose() -> dict[str, Any]:
    """docker-compose.yml, anchors and merges resolved."""
    content: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return content


def example_settings() -> dict[str, str | None]:
    """Each variable of .env.example with its value when it is commented out, and None when it is to be filled in."""
    matches = [_SETTING.fullmatch(line) for line in (ROOT / ".env.example").read_text().splitlines()]
    return {match["name"]: match["value"] if match["commented"] else None for match in matches if match}
