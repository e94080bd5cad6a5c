"""Two replicas behind a TCP balancer are replaced one after another under load: every request is answered 2xx."""

import asyncio
import random
from pathlib import Path

from sqlalchemy import func, select

from app.core.database import Database
from app.core.leases import leases
from app.ledger.tables import polls
from app.sandbox.server import serve_sandbox
from tests.soak.fleet import fleet
from tests.soak.load import Load
from tests.support.fork_client import fork_server


async def test_a_rolling_restart_of_two_replicas_gives_no_answer_but_2xx(postgres_url: str, tmp_path: Path) -> None:
    async with (
        fork_server() as parent,
        serve_sandbox() as rivya,
        fleet(parent, rivya, postgres_url, tmp_path, size=2) as replicas,
    ):
        while not rivya.sandbox.endpoints.by_id:
            await replicas.watch(replicas.ports[0], seconds=0.01)
        load = Load(rivya.sandbox, replicas.url, random.Random(3), create_seconds=30)
        running = asyncio.create_task(load.run())
        for port in replicas.ports:
            while sum(load.account.accepted.values()) % 10:
                await replicas.watch(replicas.ports[0], seconds=0.01)
            await replicas.terminate(port)
            await replicas.start(port)
            await replicas.until_ready(port)
        load.stop()
        await running
        answers = load.account.answers
        assert {answer for answer in answers if not answer.endswith(" 200")} == set(), answers
        assert answers["deliver 200"] > 50
        assert answers["create 200"] > 5


async def test_told_to_stop_a_replica_gives_its_leases_back(postgres_url: str, tmp_path: Path) -> None:
    database = Database(postgres_url)
    async with fork_server() as parent, serve_sandbox() as rivya:
        async with fleet(parent, rivya, postgres_url, tmp_path, size=1) as replicas:
            load = Load(rivya.sandbox, replicas.url, random.Random(4))
            running = asyncio.create_task(load.run())
            while load.account.answers["create 200"] < 8:
                await replicas.watch(replicas.ports[0], seconds=0.01)
            load.stop()
            await replicas.terminate(replicas.ports[0])
            await running
        held = select(func.count()).where(polls.c.lease_until > func.now())
        leading = select(func.count()).where(leases.c.held_until > func.now())
        async with database.read() as connection:
            assert [(await connection.execute(each)).scalar_one() for each in (held, leading)] == [0, 0]
    await database.dispose()
