"""GET /api/v1/usage: generations and credits summed by token name, model and day."""

from datetime import timedelta
from typing import Any

import pytest

from app.api import usage
from app.core.models import Claim
from app.ledger import queries
from app.ledger.models import Report, Source
from tests.support.api_harness import ApiHarness, error_of, open_api
from tests.support.clock import NOON
from tests.support.reports import webhook

PATH = "/api/v1/usage"


def submitted(generation_id: str, by: str | None, *, hours: float = 0, model: str | None = "z-image") -> Report:
    claim = Claim(id=generation_id, status="queued", model=model, reserved_credits=2)
    return Report(source=Source.SUBMIT, reported_at=NOON + timedelta(hours=hours), claim=claim, token=by)


def ended(generation_id: str, *, charged: float) -> Report:
    claim = Claim(id=generation_id, status="succeeded", final_credits=charged)
    return Report(source=Source.OPERATOR, reported_at=NOON, claim=claim)


async def lines(api: ApiHarness, **parameters: str) -> list[tuple[Any, ...]]:
    answer = await api.client.get(PATH, params={"from": "2026-05-01", "to": "2026-06-01", **parameters})
    assert answer.status_code == 200, answer.text
    return [tuple(line.values()) for line in answer.json()["data"]]


async def test_generations_and_credits_are_summed_by_day_token_and_model(database_url: str) -> None:
    async with open_api(database_url) as api:
        await api.record(
            *(submitted(f"shop-{n}", "shop") for n in range(3)),
            submitted("veo", "shop", model="veo"),
            submitted("studio", "studio"),
            submitted("next day", "shop", hours=12),
        )
        await api.record(ended("shop-0", charged=1.5), ended("shop-1", charged=0), webhook("elsewhere", "succeeded"))
        assert await lines(api) == [
            ("2026-05-10", None, None, 1, 0, 0, 0),
            ("2026-05-10", "shop", "veo", 1, 1, 2, 0),
            ("2026-05-10", "shop", "z-image", 3, 1, 6, 1.5),
            ("2026-05-10", "studio", "z-image", 1, 1, 2, 0),
            ("2026-05-11", "shop", "z-image", 1, 1, 2, 0),
        ]


async def test_a_window_includes_its_first_moment_and_excludes_its_last(database_url: str) -> None:
    async with open_api(database_url) as api:
        await api.record(submitted("a", "shop", hours=-12), submitted("b", "shop"), submitted("c", "shop", hours=12))
        days = {"from": "2026-05-10", "to": "2026-05-11"}
        assert [line[3] for line in await lines(api, **days)] == [2]
        instants = {"from": "2026-05-10T12:00:00Z", "to": "2026-05-11T00:00:00Z"}
        assert [line[3] for line in await lines(api, **instants)] == [1]


async def test_a_day_is_a_day_in_utc_whatever_the_offset_asked_with(database_url: str) -> None:
    async with open_api(database_url) as api:
        await api.record(submitted("late", "shop", hours=11.9), submitted("early", "shop", hours=12.1))
        asked = {"from": "2026-05-11T00:00:00+09:00", "to": "2026-05-12T00:00:00+09:00"}
        assert [line[0] for line in await lines(api, **asked)] == ["2026-05-10", "2026-05-11"]


async def test_without_a_window_it_is_the_last_thirty_days_and_the_answer_says_so(sqlite_url: str) -> None:
    async with open_api(sqlite_url) as api:
        answer = (await api.client.get(PATH)).json()
        assert answer == {
            "object": "list",
            "from": "2026-04-10T00:00:00.000Z",
            "to": "2026-05-10T12:00:00.000Z",
            "data": [],
        }


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"from": "yesterday"}, "from: must be a day like 2026-05-10, or an RFC 3339 time"),
        ({"to": "2026-13-01"}, "to: must be a day"),
        ({"from": "2026-05-12", "to": "2026-05-12"}, "from: must be before to."),
        ({"from": "2020-01-01"}, "from, to: must not be more than 366 days apart."),
        ({"since": "2026-05-10"}, "since: there is no such parameter"),
        ({"first": "2026-05-10"}, "first: there is no such parameter"),
    ],
)
async def test_a_window_that_makes_no_sense_is_refused_by_name(
    sqlite_url: str, parameters: dict[str, str], message: str
) -> None:
    async with open_api(sqlite_url) as api:
        answer = await api.client.get(PATH, params=parameters)
        assert error_of(answer) == (400, "validation_failed")
        assert message in answer.json()["error"]["message"]


async def test_more_lines_than_an_answer_holds_are_refused_and_not_cut(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage, "MOST_LINES", 2)
    async with open_api(database_url) as api:
        await api.record(*(submitted(f"g{n}", f"token-{n}") for n in range(2)))
        assert len(await lines(api)) == 2
        await api.record(submitted("g2", "token-2"))
        answer = await api.client.get(PATH, params={"to": "2026-05-12"})
        assert error_of(answer) == (400, "validation_failed")
        assert "ask for a shorter time" in answer.json()["error"]["message"]


async def test_models_beyond_the_busiest_are_summed_as_other(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "_MODELS_SHOWN", (2, 0))
    async with open_api(database_url) as api:
        made_up = [submitted(f"m{n}", "shop", model=f"made-up-{n:02}") for n in range(9)]
        usual = [submitted(f"u{n}", "shop", model=f"usual-{n % 2}") for n in range(6)]
        await api.record(*made_up, *usual, submitted("none", "shop", model=None))
        counts = {line[2]: line[3] for line in await lines(api)}
        assert counts == {"usual-0": 3, "usual-1": 3, "other": 9, None: 1}
        monkeypatch.setattr(usage, "MOST_LINES", 3)
        assert {line[2]: line[3] for line in await lines(api)} == {"other": 15, None: 1}
