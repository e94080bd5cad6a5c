"""Whatever bytes come, however they are cut: with and without RECEIVER_FAST_PATH a server answers the same."""

import asyncio
from collections.abc import Awaitable, Callable
from itertools import pairwise

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from app.ledger.tables import deliveries
from tests.support.fast_path_comparison import LAST, PATIENCE, ServerPair, delivery, read, server_pair
from tests.support.wire_cases import BROKEN, CLOSING, ENDLESS, WHOLE


def served(
    monkeypatch: pytest.MonkeyPatch,
    url: str,
    ask: Callable[[ServerPair], Awaitable[None]],
) -> None:
    async def run() -> None:
        async with server_pair(monkeypatch, url) as both:
            await ask(both)

    uvloop.run(run())


def test_what_is_whole_is_answered_the_same_and_as_expected(monkeypatch: pytest.MonkeyPatch, sqlite_url: str) -> None:
    async def ask(both: ServerPair) -> None:
        for name, (make, status) in WHOLE.items():
            first, *_ = await both.agree(make() + LAST)
            assert first.status == status, (name, first)

    served(monkeypatch, sqlite_url, ask)


def test_a_connection_that_is_to_be_closed_is_closed_by_both(monkeypatch: pytest.MonkeyPatch, sqlite_url: str) -> None:
    async def ask(both: ServerPair) -> None:
        for name, (make, status) in CLOSING.items():
            answers = await both.agree(make())
            assert [answer.status for answer in answers] == [status], name
            assert b"connection: close" in answers[0].headers, name

    served(monkeypatch, sqlite_url, ask)


def test_what_is_broken_is_refused_by_both_or_neither(monkeypatch: pytest.MonkeyPatch, sqlite_url: str) -> None:
    async def ask(both: ServerPair) -> None:
        async def one(name: str) -> None:
            answers = await both.agree(BROKEN[name](), ends=PATIENCE)
            assert all(answer.status < 500 for answer in answers), name

        await asyncio.gather(*map(one, BROKEN))

    served(monkeypatch, sqlite_url, ask)


def test_a_request_cut_anywhere_is_answered_as_if_it_were_not(monkeypatch: pytest.MonkeyPatch, sqlite_url: str) -> None:
    async def ask(both: ServerPair) -> None:
        whole = delivery("task_1") + read() + LAST
        for cut in range(1, len(whole), 3):
            answers = await both.agree(whole[:cut], whole[cut:])
            assert [answer.status for answer in answers] == [200, 200, 404], cut
        answers = await both.agree(*(whole[at : at + 1] for at in range(len(whole))))
        assert [answer.status for answer in answers] == [200, 200, 404]

    served(monkeypatch, sqlite_url, ask)


SMALL = sorted(set(WHOLE) - {"deep", "deep and forged", "too large", "bomb", "read with a thousand headers"})
Drawn = tuple[list[str], list[float]]
names = st.lists(st.sampled_from(SMALL), min_size=1, max_size=6)
places = st.lists(st.floats(0, 1), max_size=6)


def drawn() -> list[Drawn]:
    """As many as the profile says, drawn outside the loop that they are sent in."""
    examples: list[Drawn] = []

    @given(names, places)
    def draw(chosen: list[str], at: list[float]) -> None:
        examples.append((chosen, at))

    draw()
    return examples


def test_any_requests_in_any_pieces_are_answered_the_same_and_recorded_once(
    monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    cases = drawn()

    async def ask(both: ServerPair) -> None:
        for chosen, at in cases:
            whole = b"".join(WHOLE[name][0]() for name in chosen) + LAST
            cuts = sorted({0, len(whole), *(int(place * len(whole)) for place in at)})
            answers = await both.agree(*(whole[start:end] for start, end in pairwise(cuts)))
            assert answers[-1].status == 404, chosen
        async with both.service.database.read() as connection:
            rows = (await connection.execute(deliveries.select())).all()
        assert len({row.event_id for row in rows}) == len(rows) > 3
        assert len(both.fast.server_state.tasks) == len(both.plain.server_state.tasks) == 0

    served(monkeypatch, database_url, ask)


def test_spoilt_bytes_are_answered_the_same_and_never_by_a_5xx(
    monkeypatch: pytest.MonkeyPatch, sqlite_url: str
) -> None:
    cases = drawn()

    async def ask(both: ServerPair) -> None:
        async def one(chosen: list[str], at: list[float]) -> None:
            whole = bytearray(b"".join(WHOLE[name][0]() for name in chosen))
            for place in at:
                whole[int(place * (len(whole) - 1))] = int(place * 1e9) % 256
            answers = await both.agree(bytes(whole), ends=PATIENCE)
            assert all(answer.status < 500 for answer in answers), whole

        for start in range(0, len(cases), 30):
            await asyncio.gather(*(one(*case) for case in cases[start : start + 30]))

    served(monkeypatch, sqlite_url, ask)


@pytest.mark.parametrize("first", ["delivery", "read", "read of the history"])
def test_a_connection_cut_behind_a_request_takes_nobody_elses_answer_along(
    monkeypatch: pytest.MonkeyPatch, database_url: str, first: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """That it was cut is told to the last of the requests on it, while the first is still under way."""

    async def ask(both: ServerPair) -> None:
        for port in both.ports:
            for _ in range(5):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(WHOLE[first][0]() + read() + b"no HTTP\r\n\r\n")
                assert (await reader.readline()).startswith(b"HTTP/1.1 ")
                writer.close()
        answers = await both.agree(delivery("task_1") + read() + LAST, ends=10)
        assert [answer.status for answer in answers] == [200, 200, 404]

    served(monkeypatch, database_url, ask)
    assert "Traceback" not in "".join(capfd.readouterr())


def test_what_is_no_body_and_does_not_end_is_cut_before_it_fills_memory(
    monkeypatch: pytest.MonkeyPatch, sqlite_url: str
) -> None:
    async def ask(both: ServerPair) -> None:
        for what, make_bytes in ENDLESS.items():
            for port in both.ports:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(make_bytes())
                async with asyncio.timeout(20):
                    assert (await reader.readline()).startswith(b"HTTP/1.1 400 "), what
                writer.close()

    served(monkeypatch, sqlite_url, ask)
