"""A body has 10 seconds, and a second more for each 16 KiB that have arrived; later, or too large, it is refused."""

import asyncio
from collections.abc import Callable

import pytest
from starlette.types import Message, Receive

from app.core.bodies import (
    BODIES,
    BYTES_PER_SECOND,
    DELIVERIES,
    LONGEST_SILENCE,
    SECONDS,
    BodyIncomplete,
    BodyMemory,
    ClientDisconnected,
    declared_length,
    read_body,
)
from app.core.errors import BodyTooLarge, Overloaded

END = {"type": "http.request", "body": b"", "more_body": False}
Advance = Callable[[float], None]


@pytest.fixture
async def advance(monkeypatch: pytest.MonkeyPatch) -> Advance:
    """Moves the event loop's clock forward."""
    loop = asyncio.get_running_loop()
    real, offset = loop.time, [0.0]
    monkeypatch.setattr(loop, "time", lambda: real() + offset[0])

    def move(seconds: float) -> None:
        offset[0] += seconds

    return move


def piece(size: int) -> Message:
    return {"type": "http.request", "body": bytes(size), "more_body": True}


def sender(advance: Advance, *steps: tuple[float, Message]) -> Receive:
    """Gives each message so many seconds after the one before it, and nothing after the last."""
    left = list(steps)

    async def receive() -> Message:
        if not left:
            advance(LONGEST_SILENCE)
            await asyncio.Event().wait()
        seconds, message = left.pop(0)
        advance(seconds)
        await asyncio.sleep(0)  # as long as a timer that is over needs
        await asyncio.sleep(0)
        return message

    return receive


async def read(receive: Receive, *, most_bytes: int = 10_000_000, declared: bytes = b"") -> bytes:
    scope = {"type": "http", "headers": [(b"content-length", declared)]}
    return await read_body(scope, receive, most_bytes=most_bytes)


async def test_a_whole_body_is_given_unchanged(advance: Advance) -> None:
    pieces = [{"type": "http.request", "body": body, "more_body": True} for body in (b"a", b"", b"bc")]
    assert await read(sender(advance, *((1, each) for each in pieces), (1, END))) == b"abc"


async def test_a_body_that_stops_coming_is_given_up(advance: Advance) -> None:
    with pytest.raises(BodyIncomplete, match="10 s") as error:
        await read(sender(advance, (1, piece(1))))
    assert (error.value.status, error.value.code) == (408, "request_timeout")


async def test_a_body_that_drips_is_given_up_however_often_a_byte_comes(advance: Advance) -> None:
    drops = [(SECONDS / 10, piece(1)) for _ in range(12)]
    with pytest.raises(BodyIncomplete):
        await read(sender(advance, *drops, (0, END)))


async def test_a_body_at_the_minimum_rate_may_take_as_long_as_it_needs(advance: Advance) -> None:
    steps = [(1.0, piece(BYTES_PER_SECOND)) for _ in range(100)]
    assert len(await read(sender(advance, *steps, (0, END)))) == 100 * BYTES_PER_SECOND


async def test_no_body_may_be_silent_for_a_minute_however_much_has_come(advance: Advance) -> None:
    with pytest.raises(BodyIncomplete):
        await read(sender(advance, (0, piece(200 * BYTES_PER_SECOND)), (LONGEST_SILENCE, END)))


async def test_a_lost_connection_is_no_end_of_a_body(advance: Advance) -> None:
    with pytest.raises(ClientDisconnected):
        await read(sender(advance, (0, piece(1)), (0, {"type": "http.disconnect"})))


async def test_a_body_beyond_the_limit_is_refused_with_the_limit_and_not_read_further(advance: Advance) -> None:
    assert len(await read(sender(advance, (0, piece(10)), (0, END)), most_bytes=10)) == 10
    with pytest.raises(BodyTooLarge, match="larger than 10 bytes") as error:
        await read(sender(advance, (0, piece(11))), most_bytes=10)
    assert (error.value.status, error.value.code) == (413, "payload_too_large")


async def test_a_declared_length_beyond_the_limit_is_refused_without_reading(advance: Advance) -> None:
    with pytest.raises(BodyTooLarge):
        await read(sender(advance), most_bytes=10, declared=b"11")


@pytest.mark.parametrize(("text", "length"), [(b"12", 12), (b"", None), (b"-1", None), (b"1e3", None)])
def test_a_declared_length_is_a_plain_number(text: bytes, length: int | None) -> None:
    assert declared_length([(b"x", b"1"), (b"content-length", text)]) == length
    assert declared_length([]) is None


async def test_bodies_that_are_read_at_once_have_a_bound_in_bytes_and_deliveries_one_of_their_own(
    advance: Advance,
) -> None:
    memory, scope = BodyMemory(most=1000), {"type": "http", "headers": []}
    began, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> Message:
        if began.is_set():
            await go_on.wait()
            return END
        began.set()
        return piece(600)

    first = asyncio.create_task(read_body(scope, slow, most_bytes=5000, memory=memory))
    await began.wait()
    await asyncio.sleep(0)
    with pytest.raises(Overloaded) as error:
        await read_body(scope, sender(advance, (0, piece(600)), (0, END)), most_bytes=5000, memory=memory)
    assert (error.value.status, error.value.retry_after) == (503, 1)
    go_on.set()
    assert len(await first) == 600
    assert memory.used == 0
    assert DELIVERIES is not BODIES
