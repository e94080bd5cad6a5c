"""The body of `POST /api/v1/generations`, read and checked."""

from dataclasses import dataclass
from typing import Any

from app.sandbox.errors import invalid
from app.sandbox.models import Model
from app.sandbox.wishes import Wishes, read_wishes


@dataclass(frozen=True)
class Order:
    """What a caller asks for."""

    model: Model
    client_request_id: str | None
    wishes: Wishes


def read_order(body: dict[str, Any], models: dict[str, Model]) -> Order:
    """Check a create's body; raises `validation_failed`."""
    name = body.get("model")
    if not isinstance(name, str) or not name:
        raise invalid("model is required.")
    model = models.get(name)
    if model is None or not model.is_generative:
        raise invalid(f"model {name!r} can't be used for generations.")
    params = {} if body.get("params") is None else body["params"]
    if not isinstance(params, dict):
        raise invalid("params must be an object.")
    if not isinstance(body.get("prompt"), str | None):
        raise invalid("prompt must be a string.")
    trace = body.get("client_request_id")
    if not isinstance(trace, str | None):
        raise invalid("client_request_id must be a string.")
    return Order(model, trace, read_wishes(params))
