"""Secrets at rest open with the key that sealed them and with no other."""

import pytest
from cryptography.fernet import Fernet

from app.core.encryption import DecryptionFailed, SecretBox, key_id

OLD, NEW = Fernet.generate_key().decode(), Fernet.generate_key().decode()


def test_what_the_old_key_sealed_opens_after_a_new_one_was_put_before_it() -> None:
    sealed = SecretBox([OLD]).encrypt("whsec_1")
    assert SecretBox([NEW, OLD]).decrypt(sealed) == "whsec_1"


def test_the_newest_key_seals_and_is_named() -> None:
    keys = SecretBox([NEW, OLD])
    assert keys.encrypt("whsec_1").startswith(f"{key_id(NEW)}:")
    assert keys.newest == key_id(NEW)


def test_what_an_older_key_sealed_is_told_apart() -> None:
    keys = SecretBox([NEW, OLD])
    assert keys.is_newest(keys.encrypt("whsec_1"))
    assert not keys.is_newest(SecretBox([OLD]).encrypt("whsec_1"))


def test_a_missing_key_is_named_and_nothing_is_shown() -> None:
    sealed = SecretBox([OLD]).encrypt("whsec_1")
    with pytest.raises(DecryptionFailed, match=key_id(OLD)):
        SecretBox([NEW]).decrypt(sealed)


def test_a_changed_text_does_not_open() -> None:
    sealed = SecretBox([OLD]).encrypt("whsec_1")
    with pytest.raises(DecryptionFailed, match="was changed"):
        SecretBox([OLD]).decrypt(sealed[:-2] + "xx")


def test_nothing_is_sealed_without_a_key() -> None:
    with pytest.raises(DecryptionFailed, match="RECEIVER_ENCRYPTION_KEYS"):
        SecretBox([]).encrypt("whsec_1")


def test_keys_shown_show_ids_only() -> None:
    assert repr(SecretBox([OLD])) == f"SecretBox({key_id(OLD)})"
    assert OLD not in repr(SecretBox([OLD]))
