"""`rivya-receiver events`: a line for each event, resumed by its cursor, and followed through failures."""

import json
from pathlib import Path

import httpx
import pytest

from app.cli.client import watch
from app.cli.client.http import Receiver
from app.core.auth import Role
from tests.support.api_harness import TOKENS, open_api
from tests.support.commands import command
from tests.support.http_paths import HttpPath
from tests.support.reports import submit, webhook


async def test_it_shows_what_happened_and_where_to_go_on(sqlite_url: str, tmp_path: Path) -> None:
    async with open_api(sqlite_url, http=HttpPath.PLAIN) as api:
        await api.record(submit("a"))
        settings = {"RECEIVER_URL": str(api.client.base_url), "RECEIVER_TOKEN": TOKENS[Role.READ]}
        first = await command("events", settings, tmp_path)
        assert first.status == 0, first.errors
        [line] = first.output.splitlines()
        assert line.split()[1:] == ["generation.queued", "a", "-", "submit"]
        cursor = first.errors.split()[-1]
        await api.record(webhook("a", "succeeded"))
        second = await command(f"events --json --after {cursor}", settings, tmp_path)
        assert [json.loads(line)["type"] for line in second.output.splitlines()] == ["generation.succeeded"]
        wrong = await command("events --json --after wrong", settings, tmp_path)
        assert (wrong.status, json.loads(wrong.output)["error"]["code"]) == (1, "validation_failed")


async def test_following_goes_on_through_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_INTERVAL", 0.01)
    event = {"id": "c2", "type": "generation.queued", "generation": {"id": "a"}}
    answers = [
        httpx.Response(200, json={"data": [], "next_cursor": "c1", "has_more": False}),
        httpx.Response(503, json={"error": {"code": "overloaded", "message": "wait", "requestId": "r"}}),
        httpx.Response(200, json={"data": [event], "next_cursor": "c2", "has_more": False}),
    ]
    asked: list[dict[str, str]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(dict(request.url.params))
        return answers.pop(0)

    shown: list[str] = []
    async with httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="http://receiver") as client:
        pages = watch.iter_events(Receiver(client), shown.append, after="latest", follow=True)
        assert [(await anext(pages))["data"] for _ in range(2)] == [[], [event]]
    assert asked == [{"wait": "0", "after": "latest"}, {"wait": "20", "after": "c1"}, {"wait": "20", "after": "c1"}]
    assert shown == ["events: overloaded: wait (HTTP 503, request r); trying again"]
