"""Settings, checked at start; error messages name the variable."""

import re
from collections.abc import Callable, Container, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import ErrorDetails
from pydantic_settings import NoDecode

from app.core.auth import ApiToken, Role
from app.core.database_url import normal_url, with_transaction_pooler
from app.core.encryption import SecretBox
from app.core.proxies import ProxyInvalid, parse_networks, proxy_for
from app.core.records import is_header_value
from app.core.setting_sources import (
    SECRETS,
    SECRETS_DIR,
    SettingsInvalid,
    doubts,
    read_sources,
    read_variables,
    unquoted,
    unusable_files,
)
from app.core.urls import API_PATH, AllowList, Network, checked_base_url, checked_public_url, is_loopback

SHORTEST_TOKEN = 16
_LONGEST_SECONDS = 366 * 24 * 3600
_SHORTEST_SECRET = 8
_SHORTEST_CALLBACK_SECRET = 32


def parse_tokens(text: str) -> tuple[ApiToken, ...]:
    """The tokens in a list of `name:role:token`, comma separated. Raises `ValueError` that shows no token."""
    tokens: list[ApiToken] = []
    for position, entry in enumerate(_entries(text), start=1):
        name, _, rest = entry.partition(":")
        role, _, token = rest.partition(":")
        if not name or not token or role not in tuple(Role):
            roles = f"{', '.join(list(Role)[:-1])} or {list(Role)[-1]}"
            raise ValueError(f"entry {position} must be name:role:token with a role of {roles}")
        if not name.isprintable():  # it is stored with every generation that the caller submits
            raise ValueError(f"the name of entry {position} must have printable characters only")
        if len(token) < SHORTEST_TOKEN or not is_plain(token):
            raise ValueError(
                f"the token of entry {position} has {len(token)} characters; at least {SHORTEST_TOKEN} are needed, "
                "plain ASCII"
            )
        tokens.append(ApiToken.of(name, Role(role), token))
    if len({token.name for token in tokens}) < len(tokens) or len({token.digest for token in tokens}) < len(tokens):
        raise ValueError("two entries have the same name or the same token")
    return tuple(tokens)


def is_plain(text: str) -> bool:
    """Whether `text` can be a credential in a header: printable ASCII without spaces."""
    return is_header_value(text) and " " not in text


def parse_keys(text: str) -> tuple[SecretStr, ...]:
    """The Fernet keys in a comma separated list, newest first. Raises `ValueError` that shows no key."""
    keys = _entries(text)
    for position, key in enumerate(keys, start=1):
        try:
            SecretBox([key])
        except ValueError:
            raise ValueError(f"key {position} must be 32 bytes in URL-safe base64 (44 characters)") from None
    return tuple(SecretStr(key) for key in keys)


def _entries(text: str) -> list[str]:
    """The entries of a list, each perhaps in quotes of its own."""
    return [entry for part in text.split(",") if (entry := part.strip(" \t\r\n\"'"))]


def _parse_seconds(text: str) -> timedelta:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number <= _LONGEST_SECONDS:
        raise ValueError(f"must be a number of seconds, more than 0 and at most {_LONGEST_SECONDS}")
    return timedelta(seconds=number)


def _read_by(parse: Callable[[str], object]) -> BeforeValidator:
    """Reads a text by `parse`, and leaves any other value as it is."""
    return BeforeValidator(lambda value: parse(value) if isinstance(value, str) else value)


Seconds = Annotated[timedelta, _read_by(_parse_seconds)]


class DatabaseSettings(BaseModel):
    """The settings of commands that need only the database."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    receiver_secrets_dir: Path = SECRETS_DIR
    receiver_log_format: Literal["json", "console"] = "json"
    receiver_log_level: Literal["debug", "info", "warning", "error"] = "info"
    receiver_db_pooler: Literal["none", "transaction"] = "none"
    database_url: str = "sqlite+aiosqlite:///./receiver.db"

    @field_validator("database_url")
    @classmethod
    def _database(cls, value: str, info: ValidationInfo) -> str:
        url = normal_url(value)
        return with_transaction_pooler(url) if info.data.get("receiver_db_pooler") == "transaction" else url


class Settings(DatabaseSettings):
    """The settings, named like the environment variables in lower case; durations are given in seconds."""

    rivya_api_key: SecretStr
    rivya_base_url: Annotated[str, AfterValidator(checked_base_url)] = "https://rivya.ai"
    rivya_signing_secret: SecretStr | None = None
    rivya_signature_scheme: str = "auto"
    rivya_chat_timeout: Seconds = timedelta(minutes=5)
    rivya_stream_timeout: Seconds = timedelta(minutes=15)

    receiver_public_url: str | None = None
    receiver_api_tokens: Annotated[tuple[ApiToken, ...], NoDecode, _read_by(parse_tokens)] = ()
    receiver_encryption_keys: Annotated[tuple[SecretStr, ...], NoDecode, _read_by(parse_keys)] = ()
    receiver_host: str = "127.0.0.1"
    receiver_port: Annotated[int, Field(ge=0, le=65535)] = 8000
    receiver_metrics_port: Annotated[int, Field(ge=0, le=65535)] | None = None
    receiver_max_connections: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    receiver_keep_alive: Seconds = timedelta(seconds=75)
    receiver_max_wait: Seconds = timedelta(seconds=55)
    receiver_trusted_proxies: Annotated[tuple[Network, ...], NoDecode, _read_by(parse_networks)] = ()
    receiver_max_body_bytes: Annotated[int, Field(ge=1024, le=64 * 1024 * 1024)] = 1024 * 1024
    receiver_poll_grace: Seconds | None = None
    receiver_poll_interval: Seconds = timedelta(seconds=10)
    receiver_poll_rate: Annotated[float, Field(ge=0.01, le=10_000)] = 5.0
    receiver_poll_horizon: Seconds = timedelta(hours=24)
    receiver_alarm_missed_ratio: Annotated[float, Field(ge=0, le=1)] = 0.5
    receiver_alarm_silence: Seconds = timedelta(minutes=30)
    receiver_alarm_refusals: Annotated[int, Field(ge=0)] = 10
    receiver_alarm_overdue: Annotated[int, Field(ge=0, le=1000)] = 100
    receiver_alarm_submission_age: Seconds = timedelta(minutes=15)
    receiver_alarm_poll_errors: Annotated[int, Field(ge=0)] = 10
    receiver_alarm_token_limits: Annotated[float, Field(ge=0, le=1)] = 0.9
    receiver_alarm_feed_lag: Seconds = timedelta(seconds=5)
    receiver_alarm_leader_gone: Seconds = timedelta(minutes=1)
    receiver_notify_concurrency: Annotated[int, Field(ge=1, le=1000)] = 20
    receiver_notify_allow: Annotated[AllowList, NoDecode, _read_by(AllowList.parse)] = AllowList()
    receiver_callback_allow: Annotated[AllowList, NoDecode, _read_by(AllowList.parse)] = AllowList()
    receiver_callback_secret: SecretStr | None = None
    receiver_retention_days: Annotated[int, Field(ge=0, le=36_500)] = 90
    receiver_endpoint_check: Seconds = timedelta(minutes=5)
    receiver_secret_overlap: Seconds = timedelta(hours=72)
    receiver_rotate_secret_days: Annotated[float, Field(gt=0, le=3660)] | None = None
    receiver_leader_lease: Seconds = timedelta(seconds=15)
    receiver_models_ttl: Seconds = timedelta(minutes=5)
    receiver_default_credits: Annotated[float, Field(ge=0, le=1_000_000)] = 1.0
    receiver_rivya_concurrency: Annotated[int, Field(ge=1, le=10_000)] = 100
    receiver_migrate_on_start: bool = True
    receiver_fast_path: bool = True
    receiver_console: bool = True
    receiver_console_session: Seconds = timedelta(hours=12)

    @field_validator("rivya_api_key", "rivya_signing_secret", "receiver_callback_secret")
    @classmethod
    def _secret(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if value is None:
            return None
        if not is_plain(value.get_secret_value()) or value.get_secret_value().startswith(("'", '"')):
            raise ValueError("must be plain ASCII without spaces, line breaks or quotes")
        if info.field_name == "rivya_signing_secret" and len(value.get_secret_value()) < _SHORTEST_SECRET:
            raise ValueError(f"must be the endpoint's whole secret (whsec_…), at least {_SHORTEST_SECRET} characters")
        if info.field_name == "receiver_callback_secret" and len(value.get_secret_value()) < _SHORTEST_CALLBACK_SECRET:
            raise ValueError(
                f"must be {_SHORTEST_CALLBACK_SECRET} characters or more, such as `openssl rand -hex 32` prints"
            )
        return value

    @field_validator("receiver_public_url")
    @classmethod
    def _public(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None:
            return None
        # Without a base URL that setting is itself wrong, and its message is enough.
        base_url = info.data.get("rivya_base_url")
        is_sandbox = base_url is None or is_loopback(urlsplit(base_url).hostname or "")
        return checked_public_url(value, may_be_local=is_sandbox)

    @property
    def rotate_every(self) -> timedelta | None:
        """The greatest age of a secret, None where it is replaced only on request."""
        days = self.receiver_rotate_secret_days
        return None if days is None else timedelta(days=days)

    @property
    def registers_endpoint(self) -> bool:
        """Whether the service registers its endpoint; False where RIVYA_SIGNING_SECRET is set."""
        return self.rivya_signing_secret is None


_AnySettings = TypeVar("_AnySettings", bound=DatabaseSettings)


def load(**overrides: Any) -> Settings:  # noqa: ANN401 - any setting, for tests and tools
    """The settings. Raises `SettingsInvalid` with a line for each variable that is wrong, missing or misspelt."""
    given = _given(Settings) | overrides
    wrong = [*_missing([name for name, value in given.items() if value is not None]), *unusable_files()]
    settings = _checked(Settings, given, wrong)
    try:
        proxy_for(settings.rivya_base_url)
    except ProxyInvalid as error:
        wrong.append(str(error))
    if wrong:
        raise SettingsInvalid("\n".join([*wrong, *warnings()]))
    return settings


def warnings() -> list[str]:
    """A line for each variable that was corrected, or is ignored though it was probably meant for this service."""
    variables = read_variables(Settings)
    corrected = [
        f"RIVYA_BASE_URL: {API_PATH} at its end was taken off, since the service adds it"
        for name, value in variables.items()
        if name == "rivya_base_url" and unquoted(value or "").rstrip("/").endswith(API_PATH)
    ]
    files = (f"{name}_file" for name in SECRETS)
    return [*corrected, *doubts(variables, [*Settings.model_fields, *files, *_OF_THE_CLIENT])]


_OF_THE_CLIENT = ("receiver_url", "receiver_token")


def load_database() -> DatabaseSettings:
    """The settings of what needs the database only. Raises `SettingsInvalid`."""
    return _checked(DatabaseSettings, _given(DatabaseSettings))


def has_api_key() -> bool:
    """Whether RIVYA_API_KEY is set: then this is not the demo."""
    try:
        return "rivya_api_key" in _given(Settings)
    except SettingsInvalid:
        return True  # there are settings; `load` reports what is wrong with them


def _given(kind: type[DatabaseSettings]) -> dict[str, Any]:
    return {name: value for name, (_, value) in read_sources(kind).items()}


def _checked(kind: type[_AnySettings], given: dict[str, Any], missing: Sequence[str] = ()) -> _AnySettings:
    try:
        return kind(**given)
    except ValidationError as error:
        raise SettingsInvalid("\n".join([*explain(error), *missing, *warnings()])) from None


def _missing(given: Container[str]) -> list[str]:
    """A line for each missing variable that registering an endpoint needs; none if its secret was given."""
    needed = () if "rivya_signing_secret" in given else ("receiver_public_url", "receiver_encryption_keys")
    return [explain_missing(name) for name in needed if name not in given]


_HARMLESS = re.compile(r"[-+]?[0-9.]{1,12}|[a-z]{1,12}|")


def explain(error: ValidationError) -> list[str]:
    """One line for each wrong setting: the variable, its value (secrets hidden), and what would be right."""
    return [_line(details) for details in error.errors(include_url=False, include_context=True)]


def explain_missing(name: str) -> str:
    """The line for a required setting without a value."""
    return f"{name.upper()}: is not set; {_MISSING[name]}"


def _line(details: ErrorDetails) -> str:
    name = str(details["loc"][0])
    if details["type"] == "missing":
        return explain_missing(name)
    # Anything but a number or a short word may be a secret, written into the wrong variable.
    value = str(details["input"])
    is_shown = name not in SECRETS and _HARMLESS.fullmatch(value)
    return f"{name.upper()}: got {repr(value) if is_shown else 'a value that is not shown'}; {_reason(details)}"


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
