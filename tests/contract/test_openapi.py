"""The OpenAPI document is complete, and the answers are what it says."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tests.support.api_harness import ApiHarness, open_api
from tests.support.openapi_cases import ERROR, check
from tests.support.reports import poll, submit, webhook


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


@pytest.fixture(scope="module")
async def document(shared_sqlite_url: str) -> dict[str, Any]:
    async with open_api(shared_sqlite_url) as api:
        document: dict[str, Any] = (await api.stranger.get("/openapi.json")).json()
        return document


@pytest.fixture(scope="module")
async def api(shared_database_url: str) -> AsyncIterator[ApiHarness]:
    async with open_api(shared_database_url) as api:
        await api.record(submit("g"), poll("g", "processing"), webhook("g", "succeeded"), submit("h"))
        yield api


async def test_every_operation_says_what_it_is_and_where_it_belongs(document: dict[str, Any]) -> None:
    known = {tag["name"] for tag in document["tags"]}
    for method, path, operation in operations(document):
        assert operation["summary"], (method, path)
        assert operation["description"], (method, path)
        assert set(operation["tags"]) <= known, (method, path)


async def test_every_operation_under_api_documents_its_token_and_its_errors(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        if not path.startswith("/api/v1"):
            assert "security" not in operation
            continue
        assert operation["security"] == [{"HTTPBearer": []}], (method, path)
        expected = {"200", "401", "403", "503", "default"} | ({"404"} if "{" in path and method == "GET" else set())
        assert expected <= set(operation["responses"]), (method, path)
        for status, response in operation["responses"].items():
            if status not in {"200", "201"}:
                assert response["content"]["application/json"]["schema"] == {"$ref": ERROR}, (method, path, status)


async def test_nothing_speaks_of_the_frameworks_own_errors(document: dict[str, Any]) -> None:
    assert "HTTPValidationError" not in document["components"]["schemas"]
    assert all("422" not in operation["responses"] for _, _, operation in operations(document))


async def test_every_model_of_an_answer_has_an_example_that_fits_it(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for name in (
        "GenerationOut",
        "TrackingOut",
        "TransitionOut",
        "EventOut",
        "DeliveryOut",
        "EvidenceOut",
        "UsageLineOut",
        "ErrorOut",
    ):
        check(document, f"#/components/schemas/{name}", schemas[name]["example"])


@pytest.mark.parametrize(
    ("method", "path", "template"),
    [
        ("GET", "/api/v1/generations", "/api/v1/generations"),
        ("GET", "/api/v1/generations/g", "/api/v1/generations/{generation_id}"),
        ("GET", "/api/v1/generations/nobody", "/api/v1/generations/{generation_id}"),
        ("GET", "/api/v1/generations/g?wait=x", "/api/v1/generations/{generation_id}"),
        ("PUT", "/api/v1/generations/g", "/api/v1/generations/{generation_id}"),
        ("PUT", "/api/v1/generations/new", "/api/v1/generations/{generation_id}"),
        ("GET", "/api/v1/generations/g/transitions", "/api/v1/generations/{generation_id}/transitions"),
        ("GET", "/api/v1/events", "/api/v1/events"),
        ("GET", "/api/v1/events?after=x", "/api/v1/events"),
        ("GET", "/api/v1/usage?to=2026-05-11", "/api/v1/usage"),
        ("GET", "/api/v1/usage?to=x", "/api/v1/usage"),
        ("GET", "/api/v1/deliveries", "/api/v1/deliveries"),
        ("GET", "/api/v1/deliveries?limit=0", "/api/v1/deliveries"),
        ("GET", "/api/v1/deliveries/evt_g_succeeded", "/api/v1/deliveries/{event_id}"),
        ("GET", "/livez", "/livez"),
        ("GET", "/readyz", "/readyz"),
    ],
)
async def test_an_answer_is_what_the_document_says(api: ApiHarness, method: str, path: str, template: str) -> None:
    document = api.app.openapi()
    for client in api.clients.values():
        answer = await client.request(method, path)
        responses = document["paths"][template][method.lower()]["responses"]
        schema = responses[str(answer.status_code)]["content"]["application/json"]["schema"]["$ref"]
        check(document, schema, answer.json())
