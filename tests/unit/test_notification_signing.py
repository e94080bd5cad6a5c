"""What a subscriber can verify: Rivya's proven scheme and the Standard Webhooks specification, with either secret."""

from datetime import UTC, datetime, timedelta

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from app.notifications.events import OVERLAP, callback_secret, new_secret, preview, sign, valid_secrets
from app.rivya.schemes import KeyForm, derive_key, parse_scheme
from app.rivya.signature import Refused, Verified, Verifier

NOW = datetime(2026, 11, 27, 20, 30, tzinfo=UTC)
BODY = '{"id": "evt_1", "type": "generation.succeeded", "data": {"prompt": "füchse"}}'.encode()
NEW, OLD = new_secret(), new_secret()
SCHEMES = (
    "timestamped",
    "timestamped;signature=webhook-rivya;key=suffix",
    "standard-webhooks",
    "standard-webhooks;prefix=svix-",
    "standard-webhooks;key=whole",
    "standard-webhooks;key=hex",
    "timestamp-header;encoding=base64;key=hex",
    "timestamp-header;timestamp=webhook-timestamp",
    "body;signature=x-hub-signature-256",
    "body;encoding=base64;key=base64",
)
SEVERAL = [scheme for scheme in SCHEMES if scheme.startswith(("timestamped", "standard"))]


def verified(scheme: str, headers: dict[str, str], secret: str) -> bool:
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    return isinstance(Verifier(parse_scheme(scheme), [secret]).verify(raw, BODY, NOW), Verified)


@pytest.mark.parametrize("form", KeyForm)
def test_every_way_to_derive_a_key_fits_a_new_secret(form: KeyForm) -> None:
    key = derive_key(new_secret(), form)
    assert key is not None
    assert len(key) >= 32


def test_no_two_secrets_are_the_same() -> None:
    assert len({new_secret() for _ in range(100)}) == 100


@pytest.mark.parametrize("scheme", [None, *SCHEMES])
def test_the_standard_webhooks_library_verifies_whatever_the_proven_scheme_is(scheme: str | None) -> None:
    now = datetime.now(UTC)  # the library looks at the real clock
    headers = sign(BODY, [NEW], event_id="evt_1", now=now, scheme=None if scheme is None else parse_scheme(scheme))
    assert Webhook(NEW).verify(BODY, headers)["id"] == "evt_1"
    with pytest.raises(WebhookVerificationError):
        Webhook(OLD).verify(BODY, headers)


def test_the_standard_webhooks_library_verifies_with_both_secrets_after_a_rotation() -> None:
    headers = sign(BODY, [NEW, OLD], event_id="evt_1", now=datetime.now(UTC), scheme=parse_scheme("timestamped"))
    assert Webhook(NEW).verify(BODY, headers) == Webhook(OLD).verify(BODY, headers)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_verifier_of_the_proven_scheme_accepts_the_newest_secret(scheme: str) -> None:
    headers = sign(BODY, [NEW, OLD], event_id="evt_1", now=NOW, scheme=parse_scheme(scheme))
    assert verified(scheme, headers, NEW)
    assert not verified(scheme, headers, new_secret())


@pytest.mark.parametrize("scheme", SEVERAL)
def test_a_verifier_of_the_proven_scheme_accepts_the_old_secret_too(scheme: str) -> None:
    headers = sign(BODY, [NEW, OLD], event_id="evt_1", now=NOW, scheme=parse_scheme(scheme))
    assert verified(scheme, headers, OLD)


def test_several_secrets_share_one_timestamp_as_in_stripes_format() -> None:
    headers = sign(BODY, [NEW, OLD], event_id="evt_1", now=NOW, scheme=parse_scheme("timestamped"))
    stamp, *macs = headers["rivya-signature"].split(",")
    assert stamp == f"t={int(NOW.timestamp())}"
    assert [mac.partition("=")[0] for mac in macs] == ["v1", "v1"]


def test_the_specifications_own_scheme_is_not_signed_twice() -> None:
    headers = sign(BODY, [NEW], event_id="evt_1", now=NOW, scheme=parse_scheme("standard-webhooks"))
    assert headers == sign(BODY, [NEW], event_id="evt_1", now=NOW, scheme=None)
    assert " " not in headers["webhook-signature"]


def test_a_changed_body_is_not_verified() -> None:
    headers = sign(BODY + b" ", [NEW], event_id="evt_1", now=NOW, scheme=parse_scheme("timestamped"))
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    assert isinstance(Verifier(parse_scheme("timestamped"), [NEW]).verify(raw, BODY, NOW), Refused)


def test_the_old_secret_signs_for_72_hours_after_a_rotation() -> None:
    assert timedelta(hours=72) == OVERLAP
    assert valid_secrets(NEW, OLD, NOW, NOW) == (NEW, OLD)
    assert valid_secrets(NEW, OLD, NOW, NOW + OVERLAP - timedelta(seconds=1)) == (NEW, OLD)
    assert valid_secrets(NEW, OLD, NOW, NOW + OVERLAP) == (NEW,)
    assert valid_secrets(NEW, None, NOW, NOW) == valid_secrets(NEW, OLD, None, NOW) == (NEW,)


def test_each_token_has_a_callback_secret_of_its_own_that_stays_the_same() -> None:
    secrets = {callback_secret(master, token) for master in ("m" * 32, "n" * 32) for token in ("shop", "ops")}
    assert len(secrets) == 4
    assert callback_secret("m" * 32, "shop") in secrets
    assert all(derive_key(secret, form) is not None for secret in secrets for form in KeyForm)


def test_a_preview_shows_the_ends_of_a_secret_only() -> None:
    assert preview("whsec_12345678901234567890abc123") == "whsec_12...abc123"
