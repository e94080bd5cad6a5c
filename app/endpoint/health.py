"""The health of our endpoint, from the deliveries that all replicas verified and refused."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Final

from prometheus_client import Gauge
from sqlalchemy import select, update

from app.core.clock import Clock
from app.core.database import Database
from app.core.errors import SEE_LOG, DatabaseUnavailable, HealthCheck
from app.endpoint.errors import explain
from app.endpoint.keyring import Keyring
from app.endpoint.models import Endpoint, current, live, pinned_scheme
from app.endpoint.repository import EndpointRepository, endpoints

REFUSALS_SINCE_VERIFIED = Gauge(
    "receiver_refusals_since_verified", "Deliveries refused at our secret path since the last one that was verified."
)
ENDPOINT_PROVEN = Gauge("receiver_endpoint_proven", "1 once a delivery was verified with the current secret.")
RIVYA_FAILURES = Gauge("receiver_endpoint_failures", "Failed deliveries to our endpoint, as Rivya counts them.")

_SECONDS_BETWEEN_FLUSHES: Final = 1.0
_LATELY: Final = timedelta(hours=1)


@dataclass(slots=True)
class DeliveryCounts:
    """The deliveries to one endpoint: those in its row, or those that this process has not yet written there."""

    last_verified_at: datetime | None = None
    last_refused_at: datetime | None = None
    refusals: int = 0
    """Refused deliveries since the last one that was verified."""

    def record_verified(self, at: datetime) -> None:
        """Count a delivery that was verified."""
        self.last_verified_at = _latest(self.last_verified_at, at)
        self.refusals = 0

    def record_refused(self, at: datetime) -> None:
        """Count a delivery that was refused."""
        self.last_refused_at = _latest(self.last_refused_at, at)
        self.refusals += 1

    def merged(self, stored: "DeliveryCounts") -> "DeliveryCounts":
        """The row with these counts added: times only grow, and a verified delivery resets the count of refusals."""
        verified = _latest(stored.last_verified_at, self.last_verified_at)
        refused = _latest(stored.last_refused_at, self.last_refused_at)
        if _is_not_after(refused, verified):
            return DeliveryCounts(verified, refused, 0)
        is_reset = self.last_verified_at is not None and _is_not_after(stored.last_refused_at, verified)
        return DeliveryCounts(verified, refused, self.refusals + (0 if is_reset else stored.refusals))

    def added(self, later: "DeliveryCounts") -> "DeliveryCounts":
        """The sum of these counts and `later` ones."""
        refusals = later.refusals + (0 if later.last_verified_at is not None else self.refusals)
        verified = _latest(self.last_verified_at, later.last_verified_at)
        refused = _latest(self.last_refused_at, later.last_refused_at)
        return DeliveryCounts(verified, refused, refusals)


def _latest(one: datetime | None, other: datetime | None) -> datetime | None:
    return max((at for at in (one, other) if at is not None), default=None)


def _is_not_after(failure: datetime | None, success: datetime | None) -> bool:
    return failure is None or (success is not None and failure <= success)


class EndpointHealth:
    """Counts deliveries in memory; `run_once` writes the counts and reads the sum over all replicas."""

    def __init__(self, database: Database, keyring: Keyring, *, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._repository = EndpointRepository(database)
        self._keyring = keyring
        self._unwritten: dict[str, DeliveryCounts] = {}
        self._endpoints: Sequence[Endpoint] = ()
        self._malformed: dict[str, DeliveryCounts] = {}
        """Deliveries that this process refused for size or form, by defect. They prove nothing about the secret."""

    def record_verified(self, endpoint_id: str | None, at: datetime) -> None:
        """Count a delivery that was verified at `at`."""
        if endpoint_id is not None:
            self._counts(endpoint_id).record_verified(at)

    def record_refused(self, endpoint_id: str | None, at: datetime) -> None:
        """Count a delivery refused at `at`. Without `endpoint_id` it is ignored: anybody can send to other paths."""
        if endpoint_id is not None:
            self._counts(endpoint_id).record_refused(at)

    def record_malformed(self, endpoint_id: str | None, defect: str, at: datetime) -> None:
        """Count a delivery to a path of ours that was refused for its size or form; `defect` says what to do."""
        if endpoint_id is not None:
            self._malformed.setdefault(defect, DeliveryCounts()).record_refused(at)

    def callbacks_expected(self) -> bool:
        """True if callbacks are expected: by the last read an endpoint is live, and its deliveries are not refused."""
        if self._keyring.is_fixed:
            return True
        wanted = live(self._endpoints)
        return wanted is not None and wanted.callbacks_expected(self._clock.now())

    async def run_once(self) -> float:
        """Write the counts, then read our endpoints; returns the seconds until the next run.

        Raises `DatabaseUnavailable`; the counts are then kept for the next run.
        """
        if not self._keyring.is_fixed:
            await self._flush()
            self._endpoints = await self._repository.endpoints()
            endpoint = current(self._endpoints)
            REFUSALS_SINCE_VERIFIED.set(0 if endpoint is None else endpoint.refusals)
            ENDPOINT_PROVEN.set(endpoint is not None and endpoint.secret_proven_at is not None)
            RIVYA_FAILURES.set(0 if endpoint is None else endpoint.failure_count)
        return _SECONDS_BETWEEN_FLUSHES

    async def health_checks(self) -> list[HealthCheck]:
        """The checks for /readyz; from the last read if the database is not available."""
        if not self._keyring.is_fixed:
            with suppress(DatabaseUnavailable):
                self._endpoints = await self._repository.endpoints()
        now = self._clock.now()
        self._malformed = {
            defect: counts
            for defect, counts in self._malformed.items()
            if counts.last_refused_at is not None and counts.last_refused_at > now - _LATELY
        }
        return _describe(self._endpoints, self._keyring, self._malformed, now=now)

    def _counts(self, endpoint_id: str) -> DeliveryCounts:
        return self._unwritten.setdefault(endpoint_id, DeliveryCounts())

    async def _flush(self) -> None:
        taken, self._unwritten = self._unwritten, {}
        try:
            if taken:
                await self._write(taken)
        except BaseException:
            for endpoint_id, counts in taken.items():
                self._unwritten[endpoint_id] = counts.added(self._counts(endpoint_id))
            raise

    async def _write(self, taken: dict[str, DeliveryCounts]) -> None:
        health = (endpoints.c.last_verified_at, endpoints.c.last_refused_at, endpoints.c.refusals)
        async with self._database.transaction() as connection:
            for endpoint_id in sorted(taken):
                this = endpoints.c.id == endpoint_id
                row = (await connection.execute(select(*health).where(this).with_for_update())).one_or_none()
                if row is not None:
                    news = asdict(taken[endpoint_id].merged(DeliveryCounts(*row)))
                    await connection.execute(update(endpoints).where(this).values(**news))


_REMEDIES: Final = {
    "signing_secret": (
        "no secret is usable: see `endpoint` and `endpoint.attempt_failed` in the log, or correct "
        "RIVYA_SIGNATURE_SCHEME; deliveries are refused until then"
    ),
    "signature_scheme": (
        "deliveries are refused that another scheme proves: correct RIVYA_SIGNATURE_SCHEME, or run "
        "`rivya-receiver endpoint repin`"
    ),
    "endpoint": "see `rivya-receiver endpoint`, and `endpoint.attempt_failed` in the log",
    "deliveries": (
        "deliveries are refused or do not come: `rivya-receiver check --public` and `rivya-receiver endpoint` help; "
        "outcomes are polled meanwhile"
    ),
}


def check(name: str, detail: str, *, ok: bool = False, remedy: str | None = None) -> HealthCheck:
    """A check that does not make the service unready; `remedy` takes the place of the usual one of this name."""
    remedy = remedy or _REMEDIES.get(name, SEE_LOG)
    return HealthCheck(name, ok=ok, detail=detail, is_required=False, remedy=remedy)


def _describe(
    endpoints: Sequence[Endpoint], keyring: Keyring, malformed: Mapping[str, DeliveryCounts], *, now: datetime
) -> list[HealthCheck]:
    """Only an unknown secret makes the service unready, because every delivery is refused without one."""
    checks = [_secret(endpoints, keyring), _scheme(endpoints, keyring)]
    if keyring.is_fixed:
        return [*checks, check("endpoint", "made by hand (RIVYA_SIGNING_SECRET)", ok=True)]
    wanted = live(endpoints)
    if wanted is None:
        return [*checks, check("endpoint", f"not registered: {_why(endpoints)}")]
    return [*checks, _registered(wanted), _deliveries(wanted, malformed, now)]


def _secret(endpoints: Sequence[Endpoint], keyring: Keyring) -> HealthCheck:
    snapshot, detail = keyring.snapshot, "known"
    is_usable = snapshot.usable_secrets > 0
    if not is_usable and snapshot.secrets and snapshot.scheme is not None:
        detail = f"known, but without a key of the form {snapshot.scheme.key_form}: correct RIVYA_SIGNATURE_SCHEME"
    elif not is_usable:
        detail = f"not known: {_why(endpoints)}"
    remedy = _REMEDIES["signing_secret"]
    return HealthCheck("signing_secret", ok=is_usable, detail=detail, is_required=True, remedy=remedy)


def _scheme(endpoints: Sequence[Endpoint], keyring: Keyring) -> HealthCheck:
    name, scheme = "signature_scheme", keyring.snapshot.scheme
    contradicted = next((endpoint for endpoint in endpoints if endpoint.is_contradicted), None)
    is_given = keyring.wanted_scheme is not None
    if contradicted is not None:
        remedy = "correct RIVYA_SIGNATURE_SCHEME, or leave it at auto"
        remedy = remedy if is_given else "run `rivya-receiver endpoint repin`"
        detail = (
            f"deliveries are verified as {scheme}, but {contradicted.other_scheme_count} were refused that "
            f"{contradicted.other_scheme} proves: if Rivya has changed how it signs, {remedy}"
        )
        return check(name, detail)
    if scheme is None and pinned_scheme(endpoints) is None:
        return check(name, "the first delivery will prove it", ok=True)
    origin = "given by RIVYA_SIGNATURE_SCHEME" if is_given else "proven by a delivery"
    return check(name, f"{scheme}, {origin}", ok=True)


def _registered(wanted: Endpoint) -> HealthCheck:
    detail = f"registered as {wanted.rivya_id} ({wanted.state})"
    if wanted.last_error is not None:
        return check("endpoint", f"{detail}, but: {explain(wanted.last_error)}")
    if wanted.is_in_doubt:
        detail += "; a new secret was asked for, and its answer is awaited"
    return check("endpoint", detail, ok=True)


def _deliveries(wanted: Endpoint, malformed: Mapping[str, DeliveryCounts], now: datetime) -> HealthCheck:
    name, verified, failing = "deliveries", wanted.last_verified_at, wanted.failure_count
    if wanted.is_refused:
        since = "and none verified yet" if verified is None else f"since {verified:%FT%TZ}"
        return check(
            name,
            f"{wanted.refusals} refused at the endpoint's own path {since}: RIVYA_SIGNATURE_SCHEME may be wrong, "
            "or the secret was replaced elsewhere (`rivya-receiver endpoint rotate` gives a new one); "
            "outcomes are polled meanwhile",
        )
    if malformed:
        defects = "; ".join(
            f"{counts.refusals} refused, the last at {counts.last_refused_at:%FT%TZ}, {defect}"
            for defect, counts in malformed.items()
        )
        remedy = f"deliveries are refused, {'; or '.join(malformed)}; outcomes are polled meanwhile"
        return check(name, f"{defects}; outcomes are polled meanwhile", remedy=remedy)
    if failing and (
        wanted.last_success_at is None or not _is_not_after(wanted.last_failure_at, wanted.last_success_at)
    ):
        remedy = "`rivya-receiver check --public` helps"
        return check(name, f"Rivya counts {failing} failed deliveries since its last success; {remedy}")
    if verified is not None:
        return check(name, f"the last one was verified at {verified:%FT%TZ}", ok=True)
    if wanted.test_asked_at is not None and not wanted.is_awaiting_proof(now) and wanted.secret_proven_at is None:
        return check(
            name,
            "none has come yet, not even the test delivery that was asked for: `rivya-receiver check --public` shows "
            "whether Rivya can reach us; outcomes are polled meanwhile",
        )
    return check(name, "none has come yet", ok=True)


def _why(endpoints: Sequence[Endpoint]) -> str:
    endpoint = current(endpoints)
    if endpoint is None or endpoint.last_error is None:
        return "the endpoint is being registered"
    return explain(endpoint.last_error)
