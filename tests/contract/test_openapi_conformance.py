"""The whole service answers what its OpenAPI document says: to what it allows, and to what it forbids; never a 5xx."""

import asyncio
import json
import re
from typing import Any

import pytest
from hypothesis import settings

from app.core.auth import Role
from tests.support.asgi_service import TOKENS, serve
from tests.support.openapi_cases import drawn, problems_of
from tests.support.reports import webhook

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW")
EXAMPLES = max(7, settings().max_examples // 20)
"""Of each operation and kind; in the soak 100."""


def test_every_operation_answers_what_its_document_says_to_what_it_allows_and_forbids(database_url: str) -> None:
    async def document() -> dict[str, Any]:
        async with serve(database_url) as (service, _):
            return service.app.openapi()

    # The URL of its example names a host, which no test can look up; an address is not looked up.
    described = json.dumps(asyncio.run(document())).replace("https://example.com/", "https://8.8.8.8/")
    cases = drawn(described, examples=EXAMPLES)
    wrong: list[str] = []
    sent = 0

    async def run() -> None:
        nonlocal sent
        async with serve(database_url, RECEIVER_MAX_WAIT="0.01") as (service, client):
            await service.batch.record(webhook("known", "succeeded"))
            for number, case in enumerate(cases):
                problems = await problems_of(client, case, number)
                wrong.extend(problems or ())
                sent += problems is not None

    asyncio.run(run())
    assert not wrong, "\n".join(wrong[:20])
    assert sent > 9 * len(cases) // 10
    assert len(cases) > 10 * EXAMPLES


@pytest.mark.parametrize("apply", [1, 0.0, "yes"])
async def test_a_replay_is_applied_for_true_only(sqlite_url: str, apply: object) -> None:
    async with serve(sqlite_url) as (_, client):
        client.headers["Authorization"] = f"Bearer {TOKENS[Role.ADMIN]}"
        refused = await client.post("/api/v1/deliveries/replay", json={"apply": apply})
        assert (refused.status_code, "apply: " in refused.json()["error"]["message"]) == (400, True)


async def test_every_method_that_is_not_documented_is_a_405_that_names_those_that_are(sqlite_url: str) -> None:
    async with serve(sqlite_url) as (service, client):
        client.headers["Authorization"] = f"Bearer {TOKENS[Role.ADMIN]}"
        paths = service.app.openapi()["paths"]
        for path, documented in paths.items():
            own = {method.upper() for method in documented} | ({"HEAD"} if "get" in documented else set())
            # `tokens/me` is also a path of `tokens/{name}`.
            same = [other for other in paths if re.fullmatch(re.sub(r"{\w+}", "[^/]+", other), path)]
            known = own | {method.upper() for other in same for method in paths[other]}
            known |= {"HEAD"} if "GET" in known else set()
            for method in METHODS:
                if method in known:
                    continue
                answer = await client.request(method, path.replace("{", "").replace("}", ""))
                assert answer.status_code == 405, (method, path, answer.text)
                assert set(answer.headers["allow"].split(", ")) == own, (method, path)
