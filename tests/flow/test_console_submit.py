"""The form that creates a generation: paid once however often it is sent, and what is wrong with it is shown."""

import re

import pytest

from tests.support.console import Visitor, visiting
from tests.support.service_harness import open_service
from tests.support.tokens import call, create

PATH = "/console/new"
KEY = re.compile(r'name="key" value="([^"]+)"')


async def key_of(visitor: Visitor) -> str:
    found_key = KEY.search((await visitor.get(PATH)).text)
    assert found_key is not None
    return found_key[1]


async def test_a_form_that_is_sent_twice_makes_one_generation_of_the_one_who_is_signed_in(database_url: str) -> None:
    async with open_service(database_url) as room:
        async with visiting(room, await create(room, name="anna", role="write-own")) as visitor:
            data = {"key": await key_of(visitor), "model": "z-image", "prompt": "a fox", "params": '{"seed": 7}'}
            first, second = [await visitor.send_form(PATH, PATH, data=data) for _ in range(2)]
        assert first.status_code == second.status_code == 303
        assert first.headers["location"] == second.headers["location"]
        [generation] = (await call(room, "GET", "/api/v1/generations")).json()["data"]
        assert first.headers["location"] == f"/console/generations/{generation['id']}"
        assert generation["tracking"]["submitted_by"] == "anna"
        actions = [row["action"] for row in (await call(room, "GET", "/api/v1/audit?actor=anna")).json()["data"]]
        assert actions.count("POST /console/new") == 2


@pytest.mark.parametrize(
    ("changes", "status", "error"),
    [
        ({"model": ""}, 400, "model is required"),
        ({"params": "{"}, 400, "params: is not JSON"),
        ({"params": "[]"}, 400, "params: must be a JSON object"),
        ({"model": "no-such-model"}, 400, "no-such-model"),
        ({"key": ""}, 400, "Idempotency-Key must be"),
        ({"client_request_id": "x" * 600}, 400, "client_request_id must be"),
    ],
)
async def test_what_is_wrong_is_shown_with_what_was_entered(
    sqlite_url: str, changes: dict[str, str], status: int, error: str
) -> None:
    async with open_service(sqlite_url) as room, visiting(room) as visitor:
        entered = {"key": await key_of(visitor), "model": "z-image", "prompt": '<a fox> & "snow"', "params": ""}
        answer = await visitor.send_form(PATH, PATH, data={**entered, **changes})
        assert answer.status_code == status
        assert error in answer.text
        assert "&lt;a fox&gt; &amp; &#34;snow&#34;" in answer.text
        assert f'name="key" value="{changes.get("key", entered["key"])}"' in answer.text


async def test_the_models_are_options_and_none_are_known_without_rivya(database_url: str) -> None:
    async with open_service(database_url) as room, visiting(room) as visitor:
        assert '<option value="z-image">image</option>' in (await visitor.get(f"{PATH}/models")).text
    async with open_service(database_url, RIVYA_BASE_URL="http://127.0.0.1:1") as room, visiting(room) as visitor:
        answer = await visitor.get(f"{PATH}/models")
        assert (answer.status_code, answer.text.strip()) == (200, "")


@pytest.mark.parametrize("role", ["read", "read-own"])
async def test_who_only_reads_submits_nothing(sqlite_url: str, role: str) -> None:
    async with open_service(sqlite_url) as room, visiting(room, await create(room, role=role)) as visitor:
        assert (await visitor.get(PATH)).status_code == 403
        assert "New generation" not in (await visitor.get("/console")).text
        answer = await visitor.send_form("/console", PATH, data={"model": "z-image", "key": "k"})
        assert answer.status_code == 403
