"""The sources of settings: the environment, `.env`, and files that hold one secret each."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, cast

from pydantic import BaseModel
from pydantic_settings import BaseSettings, DotEnvSettingsSource, EnvSettingsSource

from app.core.environment import clean, unquoted

SECRETS: Final = (
    "rivya_api_key",
    "rivya_signing_secret",
    "receiver_api_tokens",
    "receiver_encryption_keys",
    "receiver_callback_secret",
    "database_url",
)
"""The settings that are never shown. Each may also be given as a file."""
SECRETS_DIR: Final = Path("/run/secrets")
"""The folder in which Docker and Podman mount secrets."""


class SettingsInvalid(Exception):
    """The service can't start with these settings; the text has one line for each that is wrong."""


def read_sources(settings: type[BaseModel]) -> dict[str, tuple[str, Any]]:
    """The source and the value of each setting that has one, by the setting's name.

    An earlier source wins: the environment, `.env`, the file that NAME_FILE names, a file in RECEIVER_SECRETS_DIR.

    Raises `SettingsInvalid`.
    """
    sources = _open(settings)
    for source in sources.values():
        source.env_vars = clean(source.env_vars)
    variables = {name: text for source in reversed(sources.values()) for name, text in source.env_vars.items() if text}
    files = {name: (str(path), _read(variable, path)) for name, variable, path in _secret_files(variables)}
    read = {origin: source() for origin, source in sources.items()}
    values = {name: (origin, value) for origin in reversed(read) for name, value in read[origin].items()}
    return {name: value for name, value in {**files, **values}.items() if name in settings.model_fields and value[1]}


def read_variables(settings: type[BaseModel] = BaseModel) -> dict[str, str | None]:
    """The variables of the environment and of `.env`, unchanged, by names in lower case. Raises `SettingsInvalid`."""
    environment, file = _open(settings).values()
    return {**file.env_vars, **environment.env_vars}


def _open(settings: type[BaseModel]) -> dict[str, EnvSettingsSource]:
    kind = cast("type[BaseSettings]", settings)  # the sources look at its fields only
    try:
        environment = EnvSettingsSource(kind, env_ignore_empty=True)
        # Editors on Windows begin a file with a byte order mark.
        file = DotEnvSettingsSource(kind, env_file=".env", env_file_encoding="utf-8-sig", env_ignore_empty=True)
    except UnicodeDecodeError:
        raise SettingsInvalid(".env: is not UTF-8 text; save it as such") from None
    except OSError as error:
        raise SettingsInvalid(f".env: can't be read ({error.strerror})") from None
    return {"environment": environment, ".env": file}


def _secret_files(variables: Mapping[str, str]) -> Iterator[tuple[str, str, Path]]:
    """The name of each secret that is in a file, the variable that says so, and the file."""
    given = variables.get("receiver_secrets_dir")
    directory = Path(given or SECRETS_DIR)
    if given and not directory.is_dir():
        raise SettingsInvalid("RECEIVER_SECRETS_DIR: there is no such directory")
    for name in SECRETS:
        file = variables.get(f"{name}_file")
        if file and name in variables:
            raise SettingsInvalid(f"{name.upper()}_FILE: is set, and so is {name.upper()}; remove one of them")
        if file:
            yield name, f"{name.upper()}_FILE", Path(file)
        else:
            paths = [path for path in (directory / name, directory / name.upper()) if path.is_file()]
            yield from ((name, "RECEIVER_SECRETS_DIR", path) for path in paths[:1])


def _read(variable: str, path: Path) -> str:
    # The path is not shown: it may be a secret, written into the wrong variable.
    try:
        return unquoted(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise SettingsInvalid(f"{variable}: the file can't be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise SettingsInvalid(f"{variable}: the file is not UTF-8 text") from None
