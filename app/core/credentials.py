"""Reads the tokens of our callers and our encryption keys as they are written in settings; shows none of them."""

from cryptography.fernet import Fernet
from pydantic import SecretStr

from app.core.access import ApiToken, Role

SHORTEST_TOKEN = 16


def parse_tokens(text: str) -> tuple[ApiToken, ...]:
    """`name:role:token`, comma separated. Raises `ValueError` that counts entries and shows none."""
    tokens: list[ApiToken] = []
    for position, entry in enumerate(filter(None, (part.strip() for part in text.split(","))), start=1):
        name, _, rest = entry.partition(":")
        role, _, token = rest.partition(":")
        if not name or not token or role not in tuple(Role):
            message = f"entry {position} must be name:role:token with a role of read, write or admin"
            raise ValueError(message)
        if not name.isprintable():  # it is stored with what its holder submits
            message = f"the name of entry {position} must have printable characters only"
            raise ValueError(message)
        if len(token) < SHORTEST_TOKEN or not is_plain(token):
            message = (
                f"the token of {name} has {len(token)} characters; at least {SHORTEST_TOKEN} are needed, plain ASCII"
            )
            raise ValueError(message)
        tokens.append(ApiToken.of(name, Role(role), token))
    if len({token.name for token in tokens}) < len(tokens) or len({token.digest for token in tokens}) < len(tokens):
        message = "two entries have the same name or the same token"
        raise ValueError(message)
    return tuple(tokens)


def is_plain(text: str) -> bool:
    """It can be sent in a header as it stands: ASCII, nothing blank in it."""
    return text.isascii() and text.isprintable() and " " not in text


def parse_keys(text: str) -> tuple[SecretStr, ...]:
    """Fernet keys, comma separated, newest first. Raises `ValueError` that shows none."""
    keys = [part.strip() for part in text.split(",") if part.strip()]
    for position, key in enumerate(keys, start=1):
        try:
            Fernet(key)
        except ValueError:
            message = f"key {position} must be 32 bytes in URL-safe base64 (44 characters)"
            raise ValueError(message) from None
    return tuple(SecretStr(key) for key in keys)
