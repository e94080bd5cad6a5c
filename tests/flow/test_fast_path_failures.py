"""What fails in the fast path is logged and answered by the ordinary route, which does nothing a second time."""

import asyncio
import pkgutil
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import pytest
import uvloop
from sqlalchemy import select

from app.core.errors import DatabaseUnavailable
from app.fastpath.protocol import FastPathProtocol
from app.ledger.models import Generation
from app.ledger.tables import deliveries
from tests.support.fast_path_comparison import LAST, ServerPair, delivery, read, server_pair
from tests.support.reports import submit

PATH = "/api/v1/generations/task_7"


class Failing:
    """In the place of a function: raises the first time, and then is what it replaces."""

    def __init__(self, function: Callable[..., Any], times: int = 1) -> None:
        self._function = function
        self._times = times
        self.calls = 0

    def __get__(self, instance: object, owner: type) -> Callable[..., Any]:
        return lambda *arguments, **options: self(instance, *arguments, **options)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        self.calls += 1
        if self.calls <= self._times:
            raise LookupError("injected")
        return self._function(*arguments, **options)


def served(monkeypatch: pytest.MonkeyPatch, url: str, ask: Callable[[ServerPair], Awaitable[None]]) -> None:
    async def run() -> None:
        async with server_pair(monkeypatch, url) as both:
            await both.service.batch.record(submit("task_7"))
            await ask(both)

    uvloop.run(run())


async def statuses(both: ServerPair, request: bytes) -> list[int]:
    reader, writer = await asyncio.open_connection("127.0.0.1", both.ports[0])
    async with asyncio.timeout(20):
        writer.write(request + LAST)
        heard = await reader.read()
    writer.close()
    return [int(part[:3]) for part in heard.split(b"HTTP/1.1 ")[1:]]


def forged(generation_id: str) -> bytes:
    return delivery(generation_id, sent=b'{"id":"evt_forged"}')


def status_read(generation_id: str, query: str = "") -> bytes:
    return read(f"/api/v1/generations/{generation_id}{query}")


waiting_read = partial(status_read, query="?wait=1")

FAILURES: tuple[tuple[str, Callable[[str], bytes], int], ...] = (
    ("app.fastpath.application.FastPathApp.handler", delivery, 200),
    ("app.intake.webhook.parse_delivery", delivery, 200),
    ("app.endpoint.health.EndpointHealth.record_verified", delivery, 200),
    ("app.ledger.write_queue.PendingReport", delivery, 200),
    ("app.fastpath.protocol.FastExchange.respond", delivery, 200),
    ("app.fastpath.protocol.FastExchange.respond", forged, 401),
    ("app.fastpath.protocol.FastExchange.respond", status_read, 200),
    ("app.fastpath.application.render", status_read, 200),
    ("app.fastpath.application.render", waiting_read, 200),
    ("app.api.waiting.Waiting.add_callback", status_read, 200),
    ("app.api.waiting.generation_in", waiting_read, 200),
)


def test_what_fails_is_logged_and_answered_by_the_route(
    monkeypatch: pytest.MonkeyPatch, database_url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    async def ask(both: ServerPair) -> None:
        for number, (place, make_request, status) in enumerate(FAILURES):
            generation_id = f"task_failing_{number}"
            await both.service.batch.record(submit(generation_id))
            capfd.readouterr()
            failing = Failing(pkgutil.resolve_name(place))
            with monkeypatch.context() as patched:
                patched.setattr(place, failing)
                assert await statuses(both, make_request(generation_id)) == [status, 404], place
            assert failing.calls >= 1, place
            async with both.service.database.read() as connection:
                attempts = select(deliveries.c.attempts).where(deliveries.c.event_id == f"evt_{generation_id}")
                assert set((await connection.execute(attempts)).scalars()) <= {1}, place
            output = "".join(capfd.readouterr())
            assert "fast_path.failed" in output or "waiting.failed" in output, place
            assert "LookupError: injected" in output, place

    served(monkeypatch, database_url, ask)


def test_what_fails_in_the_parser_itself_is_never_called_a_bad_request(
    monkeypatch: pytest.MonkeyPatch, sqlite_url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    async def ask(both: ServerPair) -> None:
        monkeypatch.setattr(FastPathProtocol, "on_message_complete", Failing(FastPathProtocol.on_message_complete))
        assert await statuses(both, delivery("task_7")) == [500]
        assert await statuses(both, b"GET http://host HTTP/1.1\r\nHost: r\r\n\r\n") == [400]
        assert await statuses(both, b"no HTTP\r\n\r\n") == [400]

    served(monkeypatch, sqlite_url, ask)
    output = "".join(capfd.readouterr())
    assert "LookupError: injected" in output
    assert output.count("Traceback") == 1


@pytest.mark.parametrize("name", ["fall_back", "on_response_complete"])
def test_what_fails_when_it_is_too_late_ends_the_connection(
    monkeypatch: pytest.MonkeyPatch, sqlite_url: str, name: str
) -> None:
    async def ask(both: ServerPair) -> None:
        monkeypatch.setattr(FastPathProtocol, name, Failing(getattr(FastPathProtocol, name)))
        request = read(PATH) if name == "on_response_complete" else read(PATH.replace("7", "unknown"))
        assert await statuses(both, request) == ([200] if name == "on_response_complete" else [])

    served(monkeypatch, sqlite_url, ask)


def test_a_read_that_failed_is_not_repeated_on_the_route(monkeypatch: pytest.MonkeyPatch, sqlite_url: str) -> None:
    async def ask(both: ServerPair) -> None:
        reads = 0

        async def failing(_ids: Sequence[str]) -> dict[str, Generation]:
            nonlocal reads
            reads += 1
            raise DatabaseUnavailable

        both.service.waiting.reads._read = failing
        for query, total in (("", 1), ("?wait=60", 2)):
            assert await statuses(both, read(PATH + query)) == [503, 404]
            assert reads == total

    served(monkeypatch, sqlite_url, ask)


def test_a_wait_that_fails_at_its_end_does_not_begin_anew(monkeypatch: pytest.MonkeyPatch, sqlite_url: str) -> None:
    async def ask(both: ServerPair) -> None:
        shared, asked = both.service.waiting.reads, 0
        ordinary = shared.request

        def second_fails(generation_id: str) -> Any:
            nonlocal asked
            asked += 1
            if asked == 2:
                raise LookupError("injected")
            return ordinary(generation_id)

        monkeypatch.setattr(shared, "request", second_fails)
        assert await statuses(both, read(f"{PATH}?wait=1")) == [200, 404]
        assert asked == 3, "a wait anew would look twice more"

    served(monkeypatch, sqlite_url, ask)
