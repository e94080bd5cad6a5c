"""Reads filters from the query of a page with the models of the API."""

import re
from typing import Any, Final, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

Model = TypeVar("Model", bound=BaseModel)

_OF_A_FIELD: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?", re.ASCII)


def parse_query(request: Request, model: type[Model], **ours: str) -> Model:
    """The query as parameters of the API. Empty fields count as left out; times of a form's field are in UTC.

    `ours`: parameters of the page itself, that the model does not know, with their defaults; they are left out.

    Raises `RequestValidationError`.
    """
    given = {
        name: _with_zone(value) for name, value in request.query_params.items() if value.strip() and name not in ours
    }
    return validated(model, given, place="query")


def validated(model: type[Model], given: dict[str, Any], *, place: str = "body") -> Model:
    """`given` as a model of the API. Raises `RequestValidationError`, which names what is wrong."""
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise RequestValidationError([{**each, "loc": (place, *each["loc"])} for each in error.errors()]) from None


def _with_zone(value: str) -> str:
    """A time as a browser's field for times writes it, with seconds and an offset; anything else unchanged."""
    match = _OF_A_FIELD.fullmatch(value)
    if match is None:
        return value
    return f"{value}Z" if match[1] else f"{value}:00Z"
