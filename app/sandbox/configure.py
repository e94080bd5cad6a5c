"""Changes settings and faults from JSON, refusing unknown names and wrong types."""

from dataclasses import asdict, fields
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from app.sandbox.errors import invalid
from app.sandbox.faults import Faults
from app.sandbox.keys import Key
from app.sandbox.settings import SandboxSettings

T = TypeVar("T")
Configurable = TypeVar("Configurable", Faults, SandboxSettings)


def change(target: Configurable, body: dict[str, Any]) -> None:
    """Set the named members and keep the others; raises `validation_failed` and then changes nothing."""
    overwrite(target, _merged(asdict(target), body))


def overwrite(target: Configurable, body: dict[str, Any]) -> None:
    """Set all members, those not named to their defaults; raises `validation_failed` and then changes nothing."""
    wanted = _validated(type(target), body)
    for member in fields(target):
        setattr(target, member.name, getattr(wanted, member.name))


def read_key(value: str, body: dict[str, Any]) -> Key:
    """A key with the members that the body names; raises `validation_failed`."""
    key = _validated(Key, {**body, "value": value})
    if key.expires_at is not None and key.expires_at.tzinfo is None:
        raise invalid("expires_at must name its time zone.")
    return key


def _validated(kind: type[T], body: dict[str, Any]) -> T:
    try:
        return TypeAdapter(kind).validate_python(body)
    except ValidationError as error:
        raise invalid(_first_fault(error)) from None


def _merged(current: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
    merged = dict(current)
    for name, value in body.items():
        inner = merged.get(name)
        merged[name] = _merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return merged


def _first_fault(error: ValidationError) -> str:
    fault = error.errors()[0]
    return f"{'.'.join(str(step) for step in fault['loc'])}: {fault['msg']}"
