"""Verifies deliveries by the pinned scheme, else by detection; waits for a new secret before it refuses one."""

import asyncio
import hashlib
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Final, TypeGuard

import structlog
from prometheus_client import Counter

from app.core.clock import Clock
from app.core.errors import DatabaseUnavailable, ServiceError
from app.endpoint.keyring import Keyring, KeyringSnapshot
from app.endpoint.proofs import ProofRecorder, ProofRepository
from app.rivya.scheme_detection import MOST_EFFORT, DetectedScheme, Effort, detect_scheme
from app.rivya.signature import RawHeaders, Reason, Refused, Verified

log = structlog.stdlib.get_logger(__name__)

CONTRADICTIONS = Counter(
    "receiver_signature_contradictions", "Deliveries refused by the pinned scheme that another scheme proves."
)

SECONDS_IN_DOUBT: Final = 5.0
"""How long a delivery waits for a secret that was requested; longer than the call usually takes."""

_NEEDS_NEWER_SECRETS: Final = frozenset({Reason.SIGNATURE_MISMATCH, Reason.NO_SECRET, Reason.MISSING_SIGNATURE})
_FINAL_REASONS: Final = frozenset({Reason.SIGNATURE_MISMATCH, Reason.MISSING_SIGNATURE, Reason.MALFORMED_SIGNATURE})
_NEEDS_OTHER_CLOCK: Final = frozenset({Reason.STALE_TIMESTAMP, Reason.FUTURE_TIMESTAMP})
_MOST_WAITING: Final = 256
_SECONDS_BETWEEN_CONTRADICTIONS: Final = 1.0
_EFFORT_PER_SECOND: Final = 10 * MOST_EFFORT
"""For all deliveries together: some 40 ms of each second."""
_MOST_CANDIDATES: Final = 256


class SecretPending(ServiceError):
    """A new secret was requested and is not stored yet, so the delivery can't be verified; Rivya has to resend it."""

    status = 503
    code = "secret_pending"
    message = "A new signing secret is on its way; send this again."
    retry_after = 2


class DetectionBusy(ServiceError):
    """Other deliveries have used up what detection of the scheme may cost in a second; Rivya has to resend this one."""

    status = 503
    code = "signature_undecided"
    message = "How deliveries are signed is not known yet, and too many came at once."
    retry_after = 1


class Verification:
    """Verifies one delivery per call; with a pinned scheme and proven secrets that is one signature check.

    A delivery that is too old or too new by `clock` is also verified by `alternate_clocks`. Only one with a right
    signature gets that far, and if an old one is accepted again, its event changes nothing.
    """

    def __init__(
        self, keyring: Keyring, proofs: ProofRepository, *, clock: Clock, alternate_clocks: Sequence[Clock] = ()
    ) -> None:
        self._keyring = keyring
        self._proofs = proofs
        self._recorder = ProofRecorder(keyring, proofs, clock=clock)
        self._clock = clock
        self._alternate_clocks = alternate_clocks
        self.seconds_in_doubt = SECONDS_IN_DOUBT
        self._waiting = 0
        self._contradiction_due_at = 0.0
        self._effort_left = _EFFORT_PER_SECOND
        self._effort_at = clock.monotonic()
        self._candidates: dict[str, bytes] = {}
        """Schemes that one delivery has shown, with the digest of its body."""

    @property
    def is_read(self) -> bool:
        """True if the secrets have been read; before that, none is known."""
        return self._keyring.is_read

    def endpoint_id(self, path_key: str | None) -> str | None:
        """The id of our endpoint with this path key, None if there is none."""
        return self._keyring.snapshot.endpoint_id(path_key)

    def may_be_test(self, endpoint_id: str | None, now: datetime) -> bool:
        """True if an operator's test delivery was requested, and this one may be it."""
        return self._keyring.snapshot.may_be_test(endpoint_id, now)

    def verify_now(
        self, headers: RawHeaders, body: bytes, path_key: str | None, now: datetime
    ) -> Verified | Refused | None:
        """The result if it needs no I/O, as for nearly all deliveries; None if `verify` has to decide.

        Verified: by the pinned scheme with a proven secret. Refused: at a path that is not ours, if nothing that
        `verify` could still read would change the result.
        """
        snapshot = self._keyring.snapshot
        if snapshot.verifier is None:
            return None
        result = snapshot.verifier.verify(headers, body, now)
        if isinstance(result, Verified):
            return None if _is_unproven(snapshot, result) else result
        if result.reason not in _FINAL_REASONS or snapshot.in_doubt or self._keyring.may_read:
            return None
        is_full = self._waiting >= _MOST_WAITING and self.endpoint_id(path_key) is None
        return result if is_full or path_key is None else None

    async def verify(self, headers: RawHeaders, body: bytes, path_key: str | None) -> Verified | Refused:
        """Verified or Refused, by all our secrets. `path_key`: the end of the request path, ours or not.

        Raises `DatabaseUnavailable` and `SecretPending` if that can't be decided now.
        """
        version = self._keyring.version
        result = await self._attempt(headers, body, path_key, self._clock)
        # Another replica may have registered, rotated or pinned since our last read.
        if _is_refused(result, _NEEDS_NEWER_SECRETS) and await self._refresh(path_key, version):
            result = await self._attempt(headers, body, path_key, self._clock)
        endpoint_id = self.endpoint_id(path_key)
        if _is_refused(result, _NEEDS_NEWER_SECRETS) and endpoint_id in self._keyring.snapshot.in_doubt:
            await self._wait_until_settled(endpoint_id)
            result = await self._attempt(headers, body, path_key, self._clock)
        if _is_refused(result, _NEEDS_OTHER_CLOCK):
            result = await self._attempt_by_other_clocks(result, headers, body, path_key)
        endpoint_id = self.endpoint_id(path_key)
        if isinstance(result, Refused) and endpoint_id is not None:
            await self._record_contradiction(headers, body, endpoint_id)
        return result

    async def _refresh(self, path_key: str | None, version: int) -> bool:
        """Refresh the keyring; True if there is anything newer than `version`.

        A delivery to a path of ours waits for the next read. An unknown path may belong to an endpoint that was just
        created, so a limited number of those wait too; attackers can invent any number of paths.
        """
        is_ours = self.endpoint_id(path_key) is not None
        is_patient = is_ours or (path_key is not None and self._waiting < _MOST_WAITING)
        self._waiting += is_patient
        try:
            return await self._keyring.refresh(version, is_patient=is_patient)
        finally:
            self._waiting -= is_patient

    async def _attempt(
        self, headers: RawHeaders, body: bytes, path_key: str | None, clock: Clock
    ) -> Verified | Refused:
        snapshot, now = self._keyring.snapshot, clock.now()
        if not snapshot.secrets:
            return Refused(Reason.NO_SECRET)
        if snapshot.verifier is not None:
            result = snapshot.verifier.verify(headers, body, now)
            if isinstance(result, Verified) and _is_unproven(snapshot, result):
                await self._recorder.prove(snapshot, str(snapshot.scheme), result, body, is_pinning=True)
            return result
        detection = await self._detect_and_prove(snapshot, headers, body, path_key, now)
        return detection or await self._attempt(headers, body, path_key, clock)  # another scheme was pinned first

    async def _detect_and_prove(
        self, snapshot: KeyringSnapshot, headers: RawHeaders, body: bytes, path_key: str | None, now: datetime
    ) -> Verified | Refused | None:
        """The result without a pinned scheme; None if another replica has pinned another one meanwhile.

        Raises `DetectionBusy`.
        """
        is_ours = path_key is None if self._keyring.is_fixed else snapshot.endpoint_id(path_key) is not None
        detected = self._detect(headers, body, snapshot, now) if is_ours else None
        if detected is None:
            is_signed = any(b"signature" in name for name, _ in headers)
            return Refused(Reason.SIGNATURE_MISMATCH if is_signed else Reason.MISSING_SIGNATURE)
        if isinstance(detected.result, Refused):
            return detected.result
        is_pinning = self._is_pinning(detected, body)
        if not is_pinning and not _is_unproven(snapshot, detected.result):
            return detected.result
        scheme = str(detected.scheme)
        pinned = await self._recorder.prove(snapshot, scheme, detected.result, body, is_pinning=is_pinning)
        return detected.result if pinned == scheme else None

    def _detect(
        self, headers: RawHeaders, body: bytes, snapshot: KeyringSnapshot, now: datetime
    ) -> DetectedScheme | None:
        """Raises `DetectionBusy`."""
        monotonic = self._clock.monotonic()
        refill = round((monotonic - self._effort_at) * _EFFORT_PER_SECOND)
        self._effort_left = min(self._effort_left + refill, _EFFORT_PER_SECOND)
        self._effort_at = monotonic
        allowed = min(self._effort_left, MOST_EFFORT)
        effort = Effort(allowed)
        detected = detect_scheme(headers, body, secrets=snapshot.secrets, now=now, effort=effort)
        self._effort_left -= allowed - effort.left
        if effort.is_exceeded and allowed < MOST_EFFORT:
            raise DetectionBusy
        return detected

    def _is_pinning(self, detected: DetectedScheme, body: bytes) -> bool:
        """True if the scheme may be pinned: two deliveries with different bodies have shown it.

        An attacker who has one delivery could send it again under headers of his own choice. If we pinned those,
        Rivya's deliveries would be refused. One delivery is enough under documented names at a secret path.
        """
        if detected.has_documented_names and not self._keyring.is_fixed:
            return True
        scheme, digest = str(detected.scheme), hashlib.sha256(body).digest()
        first = self._candidates.setdefault(scheme, digest)
        if len(self._candidates) > _MOST_CANDIDATES:
            del self._candidates[next(iter(self._candidates))]
        return first != digest

    async def _attempt_by_other_clocks(
        self, first: Refused, headers: RawHeaders, body: bytes, path_key: str | None
    ) -> Verified | Refused:
        for clock in self._alternate_clocks:
            result = await self._attempt(headers, body, path_key, clock)
            if isinstance(result, Verified):
                log.warning("delivery.taken_by_another_clock", offset=round(first.offset_seconds or 0))
                return result
        return first

    async def _wait_until_settled(self, endpoint_id: str | None) -> None:
        if self._waiting >= _MOST_WAITING:
            raise SecretPending
        self._waiting += 1
        try:
            async with asyncio.timeout(self.seconds_in_doubt):
                while endpoint_id in self._keyring.snapshot.in_doubt:
                    await self._keyring.refresh(self._keyring.version, is_patient=True)
        except TimeoutError:
            raise SecretPending from None
        finally:
            self._waiting -= 1

    async def _record_contradiction(self, headers: RawHeaders, body: bytes, endpoint_id: str) -> None:
        """Log and count a refused delivery that another scheme than the pinned one proves; at most once a second."""
        snapshot, monotonic = self._keyring.snapshot, self._clock.monotonic()
        if snapshot.verifier is None or monotonic < self._contradiction_due_at:
            return
        self._contradiction_due_at = monotonic + _SECONDS_BETWEEN_CONTRADICTIONS
        try:
            detected = self._detect(headers, body, snapshot, self._clock.now())
        except DetectionBusy:
            return
        if detected is None or isinstance(detected.result, Refused):
            return
        CONTRADICTIONS.inc()
        pinned, proven = str(snapshot.scheme), str(detected.scheme)
        log.error("signature.other_scheme_proven", pinned=pinned, proven=proven, endpoint_id=endpoint_id)
        with suppress(DatabaseUnavailable):
            await self._proofs.record_other_scheme(endpoint_id, proven)


def _is_refused(result: Verified | Refused, reasons: frozenset[Reason]) -> TypeGuard[Refused]:
    return isinstance(result, Refused) and result.reason in reasons


def _is_unproven(snapshot: KeyringSnapshot, verified: Verified) -> bool:
    if not snapshot.stored:
        return False  # the secret comes from a setting, and the scheme is known
    return snapshot.stored[verified.secret_number].proven_at is None
