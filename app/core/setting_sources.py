"""The sources of settings: the environment, `.env`, and files that hold one secret each, as others leave them."""

import os
import re
import ssl
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, cast

from pydantic import BaseModel
from pydantic_settings import BaseSettings, DotEnvSettingsSource, EnvSettingsSource

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


Variables = Mapping[str, str | None]
"""Values by names in lower case."""

_PREFIXES: Final = ("receiver_", "rivya_")
_ALIKE: Final = 0.87
_SERVICE_LINK: Final = re.compile(r"(tcp|udp|sctp)://\S+")
# What Kubernetes makes for a Service named `receiver` or `rivya`: RECEIVER_SERVICE_HOST, RECEIVER_PORT_8000_TCP_ADDR …
_LINK_NAME: Final = re.compile(r"\w+_(service_(host|port(_\w+)?)|port(_\d+_(tcp|udp|sctp)(_(proto|port|addr))?)?)")


def clean(variables: Variables) -> dict[str, str]:
    """The variables without blanks and quotes around their values, which `docker run --env-file` leaves there.

    Those that are empty then are left out, and those that Kubernetes made for a Service.
    """
    values = {name: unquoted(value or "") for name, value in variables.items()}
    return {name: value for name, value in values.items() if value and not _is_service_link(name, value)}


def unquoted(text: str) -> str:
    """`text` without blanks and pairs of quotes around it."""
    text = text.strip()
    while len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        text = text[1:-1].strip()
    return text


def doubts(variables: Variables, known: Iterable[str]) -> Iterator[str]:
    """A line for each variable that is ignored, though somebody probably meant it for us.

    `known`: the names of our variables.
    """
    names = tuple(known)
    for name, value in sorted(variables.items()):
        is_link = _is_service_link(name, unquoted(value or ""))
        if is_link and name in names:
            yield (
                f"{name.upper()}: ignored, since it holds what Kubernetes makes for a Service of that name: "
                "set enableServiceLinks: false in the pod, or give the Service another name"
            )
        elif name not in names and not is_link and not _LINK_NAME.fullmatch(name):
            is_ours = name.startswith(_PREFIXES)
            nearest = _nearest(name, names) if is_ours else get_close_matches(name, names, 1, _ALIKE)
            if is_ours or nearest:
                meant = f"did you mean {nearest[0].upper()}?" if nearest else "see docs/configuration.md"
                yield f"{name.upper()}: no setting has this name; {meant}"


def _nearest(name: str, names: Iterable[str]) -> list[str]:
    """Compared without the prefix, which makes any two names alike, and which may be the wrong one of ours."""
    endings = {known.partition("_")[2]: known for known in names}
    return [endings[ending] for ending in get_close_matches(name.partition("_")[2], endings, 1)]


def _is_service_link(name: str, value: str) -> bool:
    return name.endswith("_port") and _SERVICE_LINK.fullmatch(value) is not None


def unusable_files() -> Iterator[str]:
    """A line for each file of OpenSSL's variables that can't be used: every TLS connection would fail at it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE"):
        if not (value := os.environ.get(name)):
            continue
        try:
            if name == "SSL_CERT_FILE":
                context.load_verify_locations(value)
            elif name == "SSLKEYLOGFILE":
                context.keylog_filename = value
            elif not any(Path(folder).is_dir() for folder in value.split(os.pathsep)):
                raise NotADirectoryError(0, "no such folder")
        except OSError as error:
            yield f"{name}: got {value!r}, which can't be used ({error.strerror or type(error).__name__}); unset it"
