"""Encrypts stored secrets with Fernet (AES-128-CBC with HMAC-SHA256), under the newest of several keys.

The library is imported for the first key: it takes 7 MiB, which a receiver without keys does not need.
"""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.fernet import Fernet


class DecryptionFailed(Exception):
    """A stored secret can't be decrypted with the given keys; the message names the key it needs, not the secret."""


class SecretBox:
    """Encrypts with the first key, decrypts with the key that encrypted. Raises `ValueError` for what is no key."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = {key_id(key): _fernet(key) for key in keys}
        self._newest = key_id(keys[0]) if keys else None

    @property
    def newest(self) -> str | None:
        """The id of the key that encrypts, None without keys."""
        return self._newest

    def is_newest(self, sealed: str) -> bool:
        """Whether `sealed` was encrypted with the newest key."""
        return sealed.partition(":")[0] == self._newest

    def encrypt(self, secret: str) -> str:
        """`secret` as `<key id>:<Fernet token>`. Raises `DecryptionFailed` without any key."""
        if self._newest is None:
            raise DecryptionFailed("RECEIVER_ENCRYPTION_KEYS is not set, so no secret can be stored")
        return f"{self._newest}:{self._keys[self._newest].encrypt(secret.encode()).decode()}"

    def decrypt(self, sealed: str) -> str:
        """The secret in `sealed`. Raises `DecryptionFailed` if its key is not among ours or the text was changed."""
        needed, _, token = sealed.partition(":")
        fernet = self._keys.get(needed)
        if fernet is None:
            raise DecryptionFailed(
                f"a stored secret was sealed with key {needed}, which is not in RECEIVER_ENCRYPTION_KEYS: add it, "
                "or if it is lost, run `rivya-receiver endpoint reset-secret`"
            )
        from cryptography.fernet import InvalidToken  # noqa: PLC0415 - see above

        try:
            return fernet.decrypt(token).decode()
        except InvalidToken as error:
            raise DecryptionFailed(f"a stored secret does not open with its key {needed}: it was changed") from error

    def __repr__(self) -> str:
        """The ids of the keys, never the keys."""
        return f"SecretBox({', '.join(self._keys)})"


def _fernet(key: str) -> "Fernet":
    from cryptography.fernet import Fernet  # noqa: PLC0415 - see above

    return Fernet(key)


def key_id(key: str) -> str:
    """The public id of a key: the first 8 hex digits of its SHA-256."""
    return hashlib.sha256(key.encode()).hexdigest()[:8]
