"""What /readyz says of our registration: is a secret known, is an endpoint registered, are its deliveries accepted."""

from collections.abc import Sequence

from app.core.health import Finding
from app.endpoint.acts import Endpoint, current, in_state
from app.endpoint.failures import explain
from app.endpoint.keyring import Keyring
from app.endpoint.state import State


def describe(endpoints: Sequence[Endpoint], keyring: Keyring) -> list[Finding]:
    """Only an unknown secret makes the service unready: without one, every delivery has to be refused."""
    found = [_secret(endpoints, keyring)]
    if keyring.is_fixed:
        return [*found, Finding("endpoint", ok=True, detail="made by hand (RIVYA_SIGNING_SECRET)", is_required=False)]
    serving = in_state(endpoints, State.SERVING)
    if serving is None:
        return [*found, Finding("endpoint", ok=False, detail=f"not registered: {_why(endpoints)}", is_required=False)]
    return [*found, _registered(serving), _deliveries(serving)]


def _secret(endpoints: Sequence[Endpoint], keyring: Keyring) -> Finding:
    scheme = keyring.verifier.scheme
    usable = keyring.verifier.usable_secrets > 0
    if usable:
        detail = f"known, verifying {scheme}"
    elif keyring.known_secrets:
        detail = f"known, but without a key of the form {scheme.key_form}: correct RIVYA_SIGNATURE_SCHEME"
    else:
        detail = f"not known: {_why(endpoints)}"
    return Finding("signing_secret", ok=usable, detail=detail, is_required=True)


def _registered(serving: Endpoint) -> Finding:
    error = serving.last_error
    detail = f"registered as {serving.rivya_id}"
    detail += f", but: {explain(error)}" if error is not None else ""
    return Finding("endpoint", ok=error is None, detail=detail, is_required=False)


def _deliveries(serving: Endpoint) -> Finding:
    verified = serving.last_verified_at
    detail = "none has come yet" if verified is None else f"the last one was verified at {verified:%FT%TZ}"
    if serving.is_refused:
        since = "and none verified yet" if verified is None else f"since {verified:%FT%TZ}"
        detail = (
            f"{serving.refusals} refused at the endpoint's own path {since}: RIVYA_SIGNATURE_SCHEME may be wrong, "
            "or the secret was replaced elsewhere; outcomes are polled meanwhile"
        )
    return Finding("deliveries", ok=not serving.is_refused, detail=detail, is_required=False)


def _why(endpoints: Sequence[Endpoint]) -> str:
    endpoint = current(endpoints)
    if endpoint is None or endpoint.last_error is None:
        return "the endpoint is being registered"
    return explain(endpoint.last_error)
