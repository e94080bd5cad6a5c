"""Which receiver is called and with which token: RECEIVER_URL and RECEIVER_TOKEN, from the environment or `.env`."""

from dataclasses import dataclass, field

from pydantic_settings import BaseSettings, SettingsConfigDict

from app.core.settings import is_plain
from app.core.urls import checked_public_url

_DEFAULT_URL = "http://127.0.0.1:8000"


class TargetInvalid(Exception):
    """A variable is missing or wrong; the text names it and says what would be right."""


@dataclass(frozen=True, slots=True)
class Target:
    """A receiver, or anything else that speaks Rivya's API."""

    url: str
    token: str = field(repr=False)


class _Given(BaseSettings):
    model_config = SettingsConfigDict(env_file=".env", env_ignore_empty=True, extra="ignore", hide_input_in_errors=True)

    receiver_url: str = _DEFAULT_URL
    receiver_token: str | None = None


def load_target() -> Target:
    """Read both variables. Raises `TargetInvalid`."""
    try:
        given = _Given()
    except UnicodeDecodeError:
        raise TargetInvalid(".env: is not UTF-8 text; save it as such") from None
    if given.receiver_token is None:
        message = "RECEIVER_TOKEN: is not set; it is the token of an entry (name:role:token) of RECEIVER_API_TOKENS"
        raise TargetInvalid(message)
    if not is_plain(given.receiver_token):
        raise TargetInvalid("RECEIVER_TOKEN: must be plain ASCII without blanks")
    try:
        url = checked_public_url(given.receiver_url, may_be_local=True)
    except ValueError as error:
        raise TargetInvalid(f"RECEIVER_URL: {error}, such as https://receiver.example.com") from None
    return Target(url, given.receiver_token)
