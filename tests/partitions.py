"""Databases like PostgreSQL's others, but partitioned, with bounds right where the tests' times are."""

import asyncio
from datetime import timedelta
from functools import cached_property
from itertools import pairwise
from typing import Any

import asyncpg
from sqlalchemy import make_url

from app.core.migrations import migrate
from migrations.partitioning.commands import apply
from tests.clock import NOON
from tests.databases import PostgresDatabases

BOUNDS = [NOON + timedelta(seconds=seconds) for seconds in (0, 1, 30, 3600, 86_400, 40 * 86_400)]
"""Few tests stay within one partition."""


class PartitionedDatabases(PostgresDatabases):
    """Partitioned by the migration, and then once more: all that is older than a month is one partition otherwise."""

    @cached_property
    def _template(self) -> str:
        url = self._create(template="template0")
        asyncio.run(_partition(url))
        return str(make_url(url).database)


async def _partition(url: str) -> None:
    await migrate(url)
    await apply(url)
    connection: Any = await asyncpg.connect(make_url(url).set(drivername="postgresql").render_as_string())
    for table in ("deliveries", "transitions"):
        [first] = await connection.fetch("SELECT * FROM receiver_partitions WHERE name = $1", f"{table}_first")
        await connection.execute(f"DROP TABLE {table}_first")
        bounds = ["MINVALUE", *(f"'{bound}'" for bound in (*BOUNDS, first["ends_at"]))]
        for number, (begin, end) in enumerate(pairwise(bounds)):
            await connection.execute(f"CREATE TABLE {table}_{number} (LIKE {table}_default INCLUDING ALL)")
            await connection.execute(
                f"ALTER TABLE {table} ATTACH PARTITION {table}_{number} FOR VALUES FROM ({begin}) TO ({end})"
            )
    await connection.close()
