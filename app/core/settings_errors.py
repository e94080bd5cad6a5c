"""What to say of a bad setting: the variable, what it got (secrets hidden), and what would be right."""

from pydantic import ValidationError
from pydantic_core import ErrorDetails

_SECRET = ("rivya_api_key", "rivya_signing_secret", "receiver_api_tokens", "receiver_encryption_keys")


class SettingsInvalid(Exception):
    """Settings that the service won't start with; the text says which and why, one line each."""


def explain(error: ValidationError) -> str:
    """One line for each setting that is wrong."""
    return "\n".join(_line(details) for details in error.errors(include_url=False, include_context=True))


def _line(details: ErrorDetails) -> str:
    if not details["loc"]:
        return _reason(details)  # about several settings: the text names them itself
    name = str(details["loc"][0])
    if details["type"] == "missing":
        return f"{name.upper()}: is not set; {_MISSING.get(name, 'it is required')}"
    return f"{name.upper()}: got {_shown(name, details)}; {_reason(details)}"


_MISSING = {
    "rivya_api_key": "give the key that Rivya made for you (rvya_sk_…); `make run` shows the service without one",
}


def _reason(details: ErrorDetails) -> str:
    cause = details.get("ctx", {}).get("error")
    if isinstance(cause, ValueError):
        return str(cause)
    message = details["msg"]
    return f"{message[0].lower()}{message[1:]}"


def _shown(name: str, details: ErrorDetails) -> str:
    value = str(details["input"])
    if name in _SECRET or "@" in value:  # a URL may carry a password
        return "a value that is not shown"
    return repr(value)
