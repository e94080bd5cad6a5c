"""Whoever follows one delivery through the code has few files to read."""

import asyncio
from collections.abc import Iterator

import pytest
import uvloop

from tests.support.entered_files import EnteredFiles
from tests.support.fast_path_comparison import delivery, exchange, server_pair
from tests.support.http_paths import HttpPath
from tests.support.reports import submit

MOST = 22
AFTER_COMMIT = "ledger/metrics.py"
"""Is entered last, and maybe after the answer."""


@pytest.fixture
def entered() -> Iterator[EnteredFiles]:
    files = EnteredFiles()
    with files.install():
        yield files


@pytest.mark.parametrize("path", HttpPath)
def test_a_delivery_that_settles_a_generation_enters_few_files(
    path: HttpPath, monkeypatch: pytest.MonkeyPatch, database_url: str, entered: EnteredFiles
) -> None:
    async def deliver() -> None:
        async with server_pair(monkeypatch, database_url) as pair:
            fast_port, plain_port = pair.ports
            await pair.service.batch.record(submit("task_1"))
            sent = delivery("task_1", extra="Connection: close\r\n")
            with entered.watching():
                [answer] = await exchange(fast_port if path is HttpPath.FAST else plain_port, [sent])
                async with asyncio.timeout(20):
                    while AFTER_COMMIT not in entered.names:
                        await asyncio.sleep(0)
            assert answer.status == 200

    uvloop.run(deliver())
    assert {"intake/webhook.py", "ledger/decide.py"} <= entered.names
    assert len(entered.names) <= MOST, sorted(entered.names)
