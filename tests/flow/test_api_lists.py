"""GET /api/v1/generations: each filter, pages that show everything once, cursors that are never trusted."""

from datetime import timedelta
from typing import Any

import pytest

from app.core.models import Claim
from app.ledger import sql
from app.ledger.models import Report, Source
from tests.support.api_harness import ApiHarness, error_of, ids, open_api
from tests.support.clock import NOON
from tests.support.reports import poll, webhook

PATH = "/api/v1/generations"


def minutes(count: int) -> timedelta:
    return timedelta(minutes=count)


def created(
    generation_id: str, *, minute: int = 0, model: str | None = None, order: str | None = None, by: str | None = None
) -> Report:
    return Report(
        source=Source.SUBMIT,
        reported_at=NOON + minutes(minute),
        claim=Claim(id=generation_id, status="queued", model=model),
        client_request_id=order,
        token=by,
    )


async def a_few(api: ApiHarness) -> None:
    await api.record(
        created("g0", minute=0, model="z-image", order="order-0"),
        created("g1", minute=1, model="veo", by="shop"),
        created("g2", minute=2, model="z-image", order="order-2"),
        created("g3", minute=3, by="shop"),
    )
    await api.record(poll("g1", "processing"), webhook("g2", "succeeded"), webhook("g3", "failed"))


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, ["g3", "g2", "g1", "g0"]),
        ({"status": "queued"}, ["g0"]),
        ({"status": "processing"}, ["g1"]),
        ({"tracking": "settled"}, ["g3", "g2"]),
        ({"tracking": "settled", "status": "failed"}, ["g3"]),
        ({"tracking": "settled", "status": "queued"}, []),
        ({"tracking": "settled", "limit": "1"}, ["g3"]),
        ({"tracking": "watching"}, ["g1", "g0"]),
        ({"tracking": "watching", "status": "succeeded"}, []),
        ({"tracking": "lost"}, []),
        ({"model": "z-image"}, ["g2", "g0"]),
        ({"client_request_id": "order-2"}, ["g2"]),
        ({"submitted_by": "shop"}, ["g3", "g1"]),
        ({"submitted_by": "nobody"}, []),
        ({"created_after": "2026-05-10T12:02:00Z"}, ["g3", "g2"]),
        ({"created_before": "2026-05-10T12:02:00Z"}, ["g1", "g0"]),
        ({"created_after": "2026-05-10T14:01:00+02:00", "created_before": "2026-05-10T12:03:00.000Z"}, ["g2", "g1"]),
        ({"created_after": "2026-05-10T12:02:00.000001Z"}, ["g3"]),
        ({"model": "z-image", "status": "succeeded", "tracking": "settled"}, ["g2"]),
        ({"model": "no' OR 1=1 --"}, []),
        ({"limit": "1"}, ["g3"]),
    ],
)
async def test_each_filter_narrows(database_url: str, filters: dict[str, str], expected: list[str]) -> None:
    async with open_api(database_url) as api:
        await a_few(api)
        assert ids(await api.client.get(PATH, params=filters)) == expected


async def test_an_offset_written_with_a_bare_plus_is_understood(sqlite_url: str) -> None:
    async with open_api(sqlite_url) as api:
        await a_few(api)
        assert ids(await api.client.get(f"{PATH}?created_after=2026-05-10T14:02:00+02:00")) == ["g3", "g2"]


async def test_an_empty_list_is_a_list(database_url: str) -> None:
    async with open_api(database_url) as api:
        assert (await api.client.get(PATH)).json() == {"object": "list", "data": [], "next_cursor": None}


async def test_pages_show_each_once_while_new_ones_arrive(database_url: str) -> None:
    async with open_api(database_url) as api:
        # Five of them in the same instant: only the id tells them apart.
        await api.record(*(created(f"g{n:02}", minute=n // 5) for n in range(25)))
        listed: list[str] = []
        cursor: str | None = None
        for page in range(4):
            asked = {"limit": "7"} | ({"cursor": cursor} if cursor is not None else {})
            answer = await api.client.get(PATH, params=asked)
            listed += ids(answer)
            cursor = answer.json()["next_cursor"]
            await api.record(created(f"new{page}", minute=100 + page))
        assert cursor is None
        assert listed == [f"g{n:02}" for n in reversed(range(25))]


async def test_a_list_that_fits_its_limit_exactly_ends_there(database_url: str) -> None:
    async with open_api(database_url) as api:
        await api.record(*(created(f"g{n}") for n in range(7)))
        answer = await api.client.get(PATH, params={"limit": 7})
        assert (len(ids(answer)), answer.json()["next_cursor"]) == (7, None)


async def test_a_cursor_is_of_use_with_its_own_filters_only(database_url: str) -> None:
    async with open_api(database_url) as api:
        await a_few(api)
        first = await api.client.get(PATH, params={"limit": 1, "tracking": "settled"})
        cursor = first.json()["next_cursor"]
        wider = await api.client.get(PATH, params={"limit": 200, "tracking": "settled", "cursor": cursor})
        assert ids(wider) == ["g2"]
        for other in ({}, {"tracking": "watching"}, {"tracking": "settled", "model": "veo"}):
            answer = await api.client.get(PATH, params={**other, "cursor": cursor})
            assert error_of(answer) == (400, "validation_failed")
            assert answer.json()["error"]["message"].startswith("cursor: ")


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("cursor", "garbage"),
        ("cursor", "W10"),
        ("cursor", "🦜"),
        ("cursor", "A" * 10_000),
        ("limit", "0"),
        ("limit", "201"),
        ("limit", "many"),
        ("status", "done"),
        ("tracking", "open"),
        ("model", "a\x00b"),
        ("model", ""),
        ("client_request_id", "x" * 501),
        ("created_after", "yesterday"),
        ("created_after", "2026-05-10"),
        ("created_after", "2026-05-10T00:00:00"),
        ("created_before", "1778371200"),
        ("created_before", "2026-02-30T00:00:00Z"),
        ("created_before", "0001-01-01T00:00:00+23:59"),
        ("stauts", "queued"),
    ],
)
async def test_what_can_not_be_used_is_refused_by_its_name(sqlite_url: str, parameter: str, value: str) -> None:
    async with open_api(sqlite_url) as api:
        answer = await api.client.get(PATH, params={parameter: value})
        assert error_of(answer) == (400, "validation_failed")
        message: Any = answer.json()["error"]["message"]
        assert message.startswith(f"{parameter}: ")
        assert message.endswith(".")
        assert len(message) < 200


@pytest.mark.parametrize("second", [{"submitted_by": "blog"}, {"status": "queued"}, {"tracking": "settled"}])
async def test_filters_that_never_meet_give_short_pages_until_the_end(
    database_url: str, monkeypatch: pytest.MonkeyPatch, second: dict[str, str]
) -> None:
    monkeypatch.setattr(sql, "MOST_WALKED", 3)
    async with open_api(database_url) as api:
        await api.record(*(created(f"a{n}", minute=n, model="veo", by="shop") for n in range(8)))
        await api.record(*(webhook(f"a{n}", "failed" if "status" in second else "processing") for n in range(8)))
        await api.record(created("match", minute=-1, model="veo", by="blog"))
        if "tracking" in second:
            await api.record(webhook("match", "succeeded"))
        listed, cursor, pages = list[str](), None, 0
        while cursor is not None or pages == 0:
            following: dict[str, str] = {} if cursor is None else {"cursor": cursor}
            answer = (await api.client.get(PATH, params={"model": "veo", "limit": "2", **second, **following})).json()
            listed += [item["id"] for item in answer["data"]]
            cursor, pages = answer["next_cursor"], pages + 1
        assert listed == ["match"]
        assert pages == (4 if "tracking" in second else 1)
