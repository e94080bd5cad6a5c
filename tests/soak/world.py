"""What the parts of `make soak` have in common, and what a part is."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from tests.soak.table import Table
from tests.support.databases import PostgresDatabases, SqliteDatabases


@dataclass
class World:
    """What the parts have in common."""

    table: Table
    directory: Path
    postgres: PostgresDatabases
    sqlite: SqliteDatabases
    minutes: float
    numbers: "count[int]" = field(default_factory=count)

    def fresh_directory(self) -> Path:
        """One of its own for each part."""
        directory = self.directory / f"part-{next(self.numbers)}"
        directory.mkdir()
        return directory


Stage = Callable[[World, float], None]
"""Takes about so many seconds."""
