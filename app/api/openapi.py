"""The OpenAPI document, completed: FastAPI leaves the nulls out of examples, and an answer has them."""

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI

Schemas = dict[str, dict[str, Any]]


def complete(app: FastAPI) -> None:
    """Have `app` serve its document with whole examples."""
    make = app.openapi

    def openapi() -> dict[str, Any]:
        is_made = app.openapi_schema is not None
        document = make()
        if not is_made:
            _complete(document.get("components", {}).get("schemas", {}))
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI documents it


def _complete(schemas: Schemas) -> None:
    for schema in schemas.values():
        for example in (schema.get("example"), *schema.get("examples", ())):
            _restore(example, schema, schemas)


def _restore(example: object, schema: dict[str, Any], schemas: Schemas) -> None:
    """A member that is required, and missing in the example of a model that was checked, was null."""
    if not isinstance(example, dict):
        return
    for name in schema.get("required", ()):
        example.setdefault(name, None)
    for name, member in schema.get("properties", {}).items():
        value = example.get(name)
        for item in value if isinstance(value, list) else [value]:
            for inner in _referred(member, schemas):
                _restore(item, inner, schemas)


def _referred(member: dict[str, Any], schemas: Schemas) -> Iterator[dict[str, Any]]:
    for part in (member, member.get("items", {})):
        name = str(part.get("$ref", "")).rpartition("/")[2]
        if name in schemas:
            yield schemas[name]
