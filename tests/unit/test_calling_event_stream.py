"""Server-sent events are the same however the bytes were cut, and whichever line ends they use."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.cli.client.chat import Event, EventReader
from tests.support.event_stream import read

STREAM = (
    b': heartbeat\n\nretry: 3000\n\nevent: message.delta\nid: 7\ndata: {"a":\ndata:  1}\n\n'
    b"data: \xe2\x80\xa8 \xc3\xa9\n\nevent: nothing\n\ndata\n\ndata:[DONE]\n\ndata: never ended"
)
EVENTS = [
    Event("message.delta", '{"a":\n 1}'),
    Event("", "\N{LINE SEPARATOR} é"),
    Event("", ""),
    Event("", "[DONE]"),
]


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
@given(cuts=st.lists(st.integers(0, 200)))
def test_events_are_the_same_wherever_the_bytes_are_cut(line_end: bytes, cuts: list[int]) -> None:
    stream = STREAM.replace(b"\n", line_end)
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    chunks = [stream[first:end] for first, end in pairwise(edges)]
    assert read(chunks) == EVENTS


def test_an_event_is_told_as_soon_as_its_empty_line_is_there() -> None:
    reader = EventReader()
    assert reader.feed(b"data: 1\n") == []
    assert reader.feed(b"\n") == [Event("", "1")]


def test_bytes_that_are_no_text_do_not_end_the_stream() -> None:
    assert read([b"data: \xff\n\ndata: 2\n\n"]) == [Event("", "\N{REPLACEMENT CHARACTER}"), Event("", "2")]
