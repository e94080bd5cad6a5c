"""Secrets at rest open with the key that sealed them and with no other."""

import pytest
from cryptography.fernet import Fernet

from app.core.encryption import SealBroken, SealingKeys, key_id

OLD, NEW = Fernet.generate_key().decode(), Fernet.generate_key().decode()


def test_what_the_old_key_sealed_opens_after_a_new_one_was_put_before_it() -> None:
    sealed = SealingKeys([OLD]).seal("whsec_1")
    assert SealingKeys([NEW, OLD]).open(sealed) == "whsec_1"


def test_the_newest_key_seals_and_is_named() -> None:
    keys = SealingKeys([NEW, OLD])
    assert keys.seal("whsec_1").startswith(f"{key_id(NEW)}:")
    assert keys.newest == key_id(NEW)


def test_what_an_older_key_sealed_is_told_apart() -> None:
    keys = SealingKeys([NEW, OLD])
    assert keys.is_newest(keys.seal("whsec_1"))
    assert not keys.is_newest(SealingKeys([OLD]).seal("whsec_1"))


def test_a_missing_key_is_named_and_nothing_is_shown() -> None:
    sealed = SealingKeys([OLD]).seal("whsec_1")
    with pytest.raises(SealBroken, match=key_id(OLD)):
        SealingKeys([NEW]).open(sealed)


def test_a_changed_text_does_not_open() -> None:
    sealed = SealingKeys([OLD]).seal("whsec_1")
    with pytest.raises(SealBroken, match="was changed"):
        SealingKeys([OLD]).open(sealed[:-2] + "xx")


def test_nothing_is_sealed_without_a_key() -> None:
    with pytest.raises(SealBroken, match="RECEIVER_ENCRYPTION_KEYS"):
        SealingKeys([]).seal("whsec_1")


def test_keys_shown_show_ids_only() -> None:
    assert repr(SealingKeys([OLD])) == f"SealingKeys({key_id(OLD)})"
    assert OLD not in repr(SealingKeys([OLD]))
