"""What to say of a request that can't be used: which parameter or member, and what would be right; never its value."""

from collections.abc import Mapping, Sequence
from typing import Any

_AT_MOST = 5
_LONGEST_NAME = 60
_PLACES = ("query", "path", "header", "cookie", "body")


def explain(errors: Sequence[Any]) -> str:
    """One sentence for each thing that is wrong, the first five of them."""
    return " ".join(_sentence(error) for error in errors[:_AT_MOST])


def _sentence(error: Mapping[str, Any]) -> str:
    name = _name(error["loc"])
    if error["type"] == "extra_forbidden":
        return f"{name}: there is no such parameter or member."
    if error["type"] == "missing":
        return f"{name}: is required."
    message = _message(error)
    return f"{name}: {message[:1].lower()}{message[1:]}."


def _message(error: Mapping[str, Any]) -> str:
    cause = error.get("ctx", {}).get("error")  # one of our own validators, whose text is meant to be shown
    return str(cause) if isinstance(cause, ValueError) else str(error["msg"])


def _name(location: Sequence[str | int]) -> str:
    inner = [str(part) for part in location if part not in _PLACES] or [str(part) for part in location[:1]]
    name = "".join(character if character.isprintable() else "?" for character in ".".join(inner))
    return name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…"
