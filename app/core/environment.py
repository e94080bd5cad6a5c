"""The environment as others leave it: quotes, variables of Kubernetes, misspelt names, files that are missing."""

import os
import re
import ssl
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Final

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
