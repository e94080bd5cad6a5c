"""What /readyz says of our registration: a secret is known and proven, an endpoint registered, deliveries accepted."""

from collections.abc import Sequence
from datetime import datetime

from app.core.errors import Finding
from app.endpoint.endpoint import Endpoint, current, live, pinned_scheme
from app.endpoint.failures import explain
from app.endpoint.keyring import Keyring


def describe(endpoints: Sequence[Endpoint], keyring: Keyring, *, now: datetime) -> list[Finding]:
    """Only an unknown secret makes the service unready: without one, every delivery has to be refused."""
    found = [_secret(endpoints, keyring), _scheme(endpoints, keyring)]
    if keyring.is_fixed:
        return [*found, Finding("endpoint", ok=True, detail="made by hand (RIVYA_SIGNING_SECRET)", is_required=False)]
    wanted = live(endpoints)
    if wanted is None:
        return [*found, Finding("endpoint", ok=False, detail=f"not registered: {_why(endpoints)}", is_required=False)]
    return [*found, _registered(wanted), _deliveries(wanted, now)]


def _secret(endpoints: Sequence[Endpoint], keyring: Keyring) -> Finding:
    scheme = keyring.known.scheme
    usable = keyring.known.usable_secrets > 0
    if usable:
        detail = "known"
    elif keyring.known.secrets and scheme is not None:
        detail = f"known, but without a key of the form {scheme.key_form}: correct RIVYA_SIGNATURE_SCHEME"
    else:
        detail = f"not known: {_why(endpoints)}"
    return Finding("signing_secret", ok=usable, detail=detail, is_required=True)


def _scheme(endpoints: Sequence[Endpoint], keyring: Keyring) -> Finding:
    name, scheme = "signature_scheme", keyring.known.scheme
    contradicted = next((endpoint for endpoint in endpoints if endpoint.is_contradicted), None)
    if contradicted is not None:
        detail = (
            f"deliveries are verified as {scheme}, but {contradicted.other_scheme_count} were refused that "
            f"{contradicted.other_scheme} proves: if Rivya has changed how it signs, {_remedy(keyring)}"
        )
        return Finding(name, ok=False, detail=detail, is_required=False)
    if keyring.wanted_scheme is not None:
        return Finding(name, ok=True, detail=f"{scheme}, given by RIVYA_SIGNATURE_SCHEME", is_required=False)
    if scheme is None and pinned_scheme(endpoints) is None:
        return Finding(name, ok=True, detail="the first delivery will prove it", is_required=False)
    return Finding(name, ok=True, detail=f"{scheme}, proven by a delivery", is_required=False)


def _remedy(keyring: Keyring) -> str:
    if keyring.wanted_scheme is not None:
        return "correct RIVYA_SIGNATURE_SCHEME, or leave it at auto"
    return "run `rivya-receiver endpoint repin`"


def _registered(wanted: Endpoint) -> Finding:
    error = wanted.last_error
    detail = f"registered as {wanted.rivya_id} ({wanted.state})"
    if error is not None:
        detail += f", but: {explain(error)}"
    elif wanted.is_in_doubt:
        detail += "; a new secret was asked for, and its answer is awaited"
    return Finding("endpoint", ok=error is None, detail=detail, is_required=False)


def _deliveries(wanted: Endpoint, now: datetime) -> Finding:
    if wanted.is_refused:
        return Finding("deliveries", ok=False, detail=_refused(wanted), is_required=False)
    failing = wanted.failure_count
    if failing and not _is_after(wanted.last_success_at, wanted.last_failure_at):
        detail = (
            f"Rivya counts {failing} failed deliveries since its last success; `rivya-receiver check --public` helps"
        )
        return Finding("deliveries", ok=False, detail=detail, is_required=False)
    if wanted.last_verified_at is not None:
        detail = f"the last one was verified at {wanted.last_verified_at:%FT%TZ}"
    elif wanted.test_asked_at is not None and not wanted.is_awaiting_proof(now) and wanted.secret_proven_at is None:
        detail = (
            "none has come yet, not even the test delivery that was asked for: `rivya-receiver check --public` tells "
            "whether Rivya can reach us; outcomes are polled meanwhile"
        )
        return Finding("deliveries", ok=False, detail=detail, is_required=False)
    else:
        detail = "none has come yet"
    return Finding("deliveries", ok=True, detail=detail, is_required=False)


def _refused(wanted: Endpoint) -> str:
    verified = wanted.last_verified_at
    since = "and none verified yet" if verified is None else f"since {verified:%FT%TZ}"
    return (
        f"{wanted.refusals} refused at the endpoint's own path {since}: RIVYA_SIGNATURE_SCHEME may be wrong, "
        "or the secret was replaced elsewhere (`rivya-receiver endpoint rotate` gives a new one); "
        "outcomes are polled meanwhile"
    )


def _is_after(success: datetime | None, failure: datetime | None) -> bool:
    return success is not None and (failure is None or success >= failure)


def _why(endpoints: Sequence[Endpoint]) -> str:
    endpoint = current(endpoints)
    if endpoint is None or endpoint.last_error is None:
        return "the endpoint is being registered"
    return explain(endpoint.last_error)
