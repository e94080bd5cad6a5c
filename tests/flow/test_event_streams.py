"""GET /api/v1/events as server-sent events: live, resumable, and ended in bounded time whatever its reader does."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from httpx_sse import EventSource, ServerSentEvent

from app.api import events
from app.core.auth import ApiToken, Role
from app.core.background import BackgroundLoops
from app.core.clock import SystemClock
from app.ledger.feed import FeedCursor, FeedPage
from app.ledger.models import EventFilter
from app.operations.retention import Pruning
from tests.support.api_harness import ApiHarness, error_of, open_api
from tests.support.clock import NOON
from tests.support.http_paths import HttpPath
from tests.support.reports import poll, submit, webhook

PATH = "/api/v1/events"
STREAM = {"Accept": "text/event-stream"}


@asynccontextmanager
async def open_streams(url: str) -> AsyncIterator[ApiHarness]:
    """The API behind a server, with the loop that reads what is new."""
    async with open_api(url, http=HttpPath.PLAIN) as api, asyncio.timeout(300):
        loops = BackgroundLoops(SystemClock())
        loops.start("tail", api.tail.run_once)
        try:
            yield api
        finally:
            api.tail.stop()
            await loops.stop()


@asynccontextmanager
async def streaming(
    api: ApiHarness, last: str | None = None, **parameters: str
) -> AsyncIterator[AsyncIterator[ServerSentEvent]]:
    headers = STREAM if last is None else {**STREAM, "Last-Event-ID": last}
    async with api.client.stream("GET", PATH, headers=headers, params=parameters) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/event-stream"
        assert answer.headers["x-accel-buffering"] == "no"
        assert answer.headers["cache-control"] == "no-store"
        yield aiter(EventSource(answer).aiter_sse())


async def read(stream: AsyncIterator[ServerSentEvent], number: int) -> list[ServerSentEvent]:
    """The next events, without the first one, which only says after how long to connect again."""
    read_events: list[ServerSentEvent] = []
    while len(read_events) < number:
        event = await anext(stream)
        if event.data:
            read_events.append(event)
    return read_events


def named(received: list[ServerSentEvent]) -> list[tuple[str, str]]:
    return [(event.json()["generation"]["id"], event.event) for event in received]


async def test_what_was_and_what_comes_is_sent_as_events(database_url: str) -> None:
    async with open_streams(database_url) as api:
        await api.record(submit("a"))
        async with streaming(api) as stream:
            first = await anext(stream)
            assert (first.retry, first.data) == (2000, "")
            [before] = await read(stream, 1)
            await api.parked_in_feed()
            await api.record(webhook("a", "succeeded"))
            [after] = await read(stream, 1)
        assert named([before, after]) == [("a", "generation.queued"), ("a", "generation.succeeded")]
        listed = (await api.client.get(PATH)).json()["data"]
        assert after.json() == listed[1]
        assert [before.id, after.id] == [event["id"] for event in listed]


async def test_it_resumes_after_the_last_event_and_the_header_wins(database_url: str) -> None:
    async with open_streams(database_url) as api:
        for name in ("a", "b", "c"):
            await api.record(submit(name))
        async with streaming(api) as stream:
            a, b, _ = await read(stream, 3)
        for last, after, number in ((a.id, {}, 2), (b.id, {"after": a.id}, 1), (None, {"after": a.id}, 2)):
            async with streaming(api, last, **after) as stream:
                assert named(await read(stream, number))[-1] == ("c", "generation.queued")
        answer = await api.client.get(PATH, headers={**STREAM, "Last-Event-ID": "forged"})
        assert error_of(answer) == (400, "validation_failed")


async def test_it_begins_now_where_that_is_wanted(database_url: str) -> None:
    async with open_streams(database_url) as api:
        await api.record(submit("a"))
        async with streaming(api, after="latest") as stream:
            await api.parked_in_feed()
            await api.record(submit("b"))
            assert named(await read(stream, 1)) == [("b", "generation.queued")]


async def test_a_stream_about_one_generation_ends_with_its_final_event(database_url: str) -> None:
    async with open_streams(database_url) as api:
        await api.record(submit("g"))
        async with (
            streaming(api, generation_id="g") as stream,
            streaming(api, generation_id="g", type="generation.queued") as other,
        ):
            await api.parked_in_feed(2)
            await api.record(submit("h"), poll("g", "processing"))
            await api.record(webhook("g", "succeeded"))
            received = [event async for event in stream if event.data]
            assert [event.event for event in received] == [
                f"generation.{status}" for status in ("queued", "processing", "succeeded")
            ]
            assert [event.event async for event in other if event.data] == ["generation.queued"]
        again = await api.client.get(
            PATH, headers={**STREAM, "Last-Event-ID": received[-1].id}, params={"generation_id": "g"}
        )
        assert (again.status_code, again.content) == (204, b"")
        async with streaming(api, received[1].id, generation_id="g") as stream:
            assert [event.event async for event in stream if event.data] == ["generation.succeeded"]


async def test_a_gap_is_an_event(database_url: str) -> None:
    async with open_streams(database_url) as api:
        for name in ("a", "b", "c"):
            await api.record(submit(name))
        async with streaming(api) as stream:
            [a] = await read(stream, 1)
        await Pruning(api.room.database).generations(["b"], now=NOON)
        async with streaming(api, a.id) as stream:
            gap, c = await read(stream, 2)
        assert (gap.event, gap.json(), c.json()["generation"]["id"]) == ("gap", {"object": "gap"}, "c")


async def test_an_open_stream_is_not_disturbed_by_the_removal_of_what_it_has_read(database_url: str) -> None:
    async with open_streams(database_url) as api:
        await api.record(submit("a"))
        async with streaming(api) as stream:
            await read(stream, 1)
            await api.parked_in_feed()
            await Pruning(api.room.database).generations(["a"], now=NOON)
            await api.record(submit("b"))
            [b] = await read(stream, 1)
            assert (b.event, b.json()["generation"]["id"]) == ("generation.queued", "b")


async def test_a_quiet_stream_gets_a_comment(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "SECONDS_BETWEEN_COMMENTS", 0.05)
    async with open_streams(sqlite_url) as api, api.client.stream("GET", PATH, headers=STREAM) as answer:
        lines = answer.aiter_lines()
        assert [await anext(lines) for _ in range(6)] == ["retry: 2000", "", ":", "", ":", ""]


async def test_a_stream_whose_token_is_revoked_ends(sqlite_url: str) -> None:
    async with open_streams(sqlite_url) as api:
        api.access.replace([ApiToken.of("shop", Role.READ, "rcv_of_the_shop")])
        headers = {**STREAM, "Authorization": "Bearer rcv_of_the_shop"}
        async with api.client.stream("GET", PATH, headers=headers) as answer:
            assert answer.status_code == 200
            await api.parked_in_feed()
            api.access.replace([])
            assert await answer.aread() == b"retry: 2000\n\n"


async def test_a_process_that_stops_ends_its_streams(sqlite_url: str) -> None:
    async with open_streams(sqlite_url) as api, streaming(api) as stream:
        await api.parked_in_feed()
        api.tail.stop()
        assert [event async for event in stream if event.data] == []


async def test_a_client_that_has_left_is_not_followed_after_the_next_event(sqlite_url: str) -> None:
    async with open_streams(sqlite_url) as api:
        async with streaming(api):
            await api.parked_in_feed()
        number = 0
        while api.followers():  # TCP reports it with the second piece that nobody takes
            number += 1
            await api.record(submit(f"g{number}"))


class CountedReads:
    """Counts the pages that are read from the database."""

    def __init__(self, api: ApiHarness, monkeypatch: pytest.MonkeyPatch) -> None:
        self.number = 0
        read_page = api.tail.feed.read

        async def read(chosen: EventFilter, *, after: FeedCursor, limit: int) -> FeedPage:
            self.number += 1
            return await read_page(chosen, after=after, limit=limit)

        monkeypatch.setattr(api.tail.feed, "read", read)


async def test_a_thousand_streams_cost_one_read_for_each_commit(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_streams(postgres_url) as api, AsyncExitStack() as stack:
        opened = (stack.enter_async_context(raw_stream(api, number)) for number in range(1000))
        readers = await asyncio.gather(*opened)
        await api.parked_in_feed(len(readers))
        reads, now = CountedReads(api, monkeypatch), asyncio.get_running_loop().time
        began = now()
        await api.record(submit("g1"))
        concerned = [reader for number, reader in enumerate(readers) if number % 2 == 0 or number == 1]
        received = await asyncio.gather(*(reader.readuntil(b"data: ") for reader in concerned))
        assert all(b"event: generation.queued" in piece for piece in received)
        assert reads.number <= 2 + 2 * (now() - began), "one for the commit, and two a second for other replicas"


@asynccontextmanager
async def raw_stream(api: ApiHarness, number: int) -> AsyncIterator[asyncio.StreamReader]:
    """A stream without the weight of an HTTP client: of everything for even numbers, else of one generation."""
    query = f"&generation_id=g{number}" if number % 2 else ""
    url, token = api.client.base_url, api.client.headers["authorization"]
    reader, writer = await asyncio.open_connection(url.host, url.port)
    try:
        head = f"GET {PATH}?after=latest{query} HTTP/1.1\r\nhost: receiver\r\nauthorization: {token}\r\n"
        writer.write(f"{head}accept: text/event-stream\r\n\r\n".encode())
        assert b" 200 OK" in await reader.readuntil(b"retry: ")
        yield reader
    finally:
        writer.transport.abort()


@pytest.mark.parametrize("http", [*HttpPath])
async def test_a_token_whose_calls_wait_in_all_its_places_gets_503(sqlite_url: str, http: HttpPath) -> None:
    async with open_api(sqlite_url, http=http) as api:
        api.access.most_waiting = 0
        await api.record(submit("a"))
        for path, headers in (
            (PATH, STREAM),
            (f"{PATH}?wait=1&after=latest", {}),
            ("/api/v1/generations/a?wait=1", {}),
        ):
            assert error_of(await api.client.get(path, headers=headers)) == (503, "overloaded"), path
        assert (await api.client.get("/api/v1/generations/a")).status_code == 200
        api.access.most_waiting = 1
        for _ in range(2):
            assert (await api.client.get("/api/v1/generations/a?wait=1")).status_code == 200
