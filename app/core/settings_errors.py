"""What to say of a bad setting: the variable, what it got (secrets hidden), and what would be right."""

from pydantic import ValidationError
from pydantic_core import ErrorDetails

_SECRET = ("rivya_api_key", "rivya_signing_secret", "receiver_api_tokens", "receiver_encryption_keys", "database_url")


class SettingsInvalid(Exception):
    """Settings that the service won't start with; the text says which and why, one line each."""


def explain(error: ValidationError) -> list[str]:
    """One line for each setting that is wrong."""
    return [_line(details) for details in error.errors(include_url=False, include_context=True)]


def explain_missing(name: str) -> str:
    """The line for a setting that has no value and needs one."""
    return f"{name.upper()}: is not set; {_MISSING[name]}"


def _line(details: ErrorDetails) -> str:
    name = str(details["loc"][0])
    if details["type"] == "missing":
        return explain_missing(name)
    return f"{name.upper()}: got {_shown(name, details)}; {_reason(details)}"


_MISSING = {
    "rivya_api_key": "give the key that Rivya made for you (rvya_sk_…); `make run` shows the service without one",
    "receiver_public_url": (
        "give the https URL at which Rivya reaches this service, "
        "or RIVYA_SIGNING_SECRET if you made the endpoint by hand"
    ),
    "receiver_encryption_keys": (
        "the endpoint's secret is stored encrypted: give 32 random bytes in URL-safe base64 "
        "(`rivya-receiver keys generate` prints such a key)"
    ),
}


def _reason(details: ErrorDetails) -> str:
    cause = details.get("ctx", {}).get("error")
    if isinstance(cause, ValueError):
        return str(cause)
    if details["type"] == "bool_parsing":
        return "must be true or false"
    message = details["msg"]
    return f"{message[0].lower()}{message[1:]}"


def _shown(name: str, details: ErrorDetails) -> str:
    value = str(details["input"])
    if name in _SECRET or "@" in value:  # a URL may carry a password
        return "a value that is not shown"
    return repr(value)
