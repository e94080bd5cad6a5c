"""Server-sent events are the same however the bytes were cut, and whichever line ends they use."""

from collections.abc import AsyncIterator
from itertools import pairwise

import pytest
from httpx_sse import ServerSentEvent
from hypothesis import given
from hypothesis import strategies as st

from app.cli.client.http import CallFailed
from tests.support.event_stream import pieces, read, stream

STREAM = (
    b': heartbeat\n\nretry: 3000\n\nevent: message.delta\nid: 7\ndata: {"a":\ndata:  1}\n\n'
    b"data: \xe2\x80\xa8 \xc3\xa9\n\nevent: nothing\n\ndata\n\ndata:[DONE]\n\ndata: never ended"
)
EVENTS = [
    ("message.delta", '{"a":\n 1}'),
    ("message", "\N{LINE SEPARATOR} é"),
    ("nothing", ""),
    ("message", "[DONE]"),
]


def named(events: list[ServerSentEvent]) -> list[tuple[str, str]]:
    return [(event.event, event.data) for event in events]


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
@given(cuts=st.lists(st.integers(0, 200)))
def test_events_are_the_same_wherever_the_bytes_are_cut(line_end: bytes, cuts: list[int]) -> None:
    stream = STREAM.replace(b"\n", line_end)
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    chunks = [stream[first:end] for first, end in pairwise(edges)]
    assert named(read(chunks)) == EVENTS


async def test_an_event_is_told_as_soon_as_its_empty_line_is_there() -> None:
    sent = []

    async def speaking() -> AsyncIterator[bytes]:
        for chunk in (b"data: 1\n", b"\n", b"data: 2\n\n"):
            sent.append(chunk)
            yield chunk

    received = [(event.data, len(sent)) async for event in stream(speaking())]
    assert received == [("1", 2), ("2", 3)]


def test_bytes_that_are_no_text_do_not_end_the_stream() -> None:
    assert named(read([b"data: \xff\n\ndata: 2\n\n"])) == [("message", "\N{REPLACEMENT CHARACTER}"), ("message", "2")]


async def test_an_answer_that_is_no_stream_is_a_failure() -> None:
    with pytest.raises(CallFailed, match="text/event-stream") as raised:
        [event async for event in stream(pieces([b"{}"]), "application/json")]
    assert raised.value.document["error"]["code"] == "unexpected_answer"
