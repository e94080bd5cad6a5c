"""Verifies deliveries by the pinned scheme, else by detection; waits for a new secret before it refuses one."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Final

import structlog

from app.core.clock import Clock
from app.core.errors import DatabaseUnavailable, ServiceError
from app.endpoint.keyring import Keyring, KeyringSnapshot
from app.endpoint.metrics import CONTRADICTIONS
from app.endpoint.proofs import ProofRecorder, ProofRepository
from app.rivya.scheme_detection import DetectedScheme, detect_scheme
from app.rivya.signature import RawHeaders, Reason, Refused, Verified

log = structlog.stdlib.get_logger(__name__)


_WORTH_A_LOOK: Final = frozenset({Reason.SIGNATURE_MISMATCH, Reason.NO_SECRET, Reason.MISSING_SIGNATURE})
_FINAL_REASONS: Final = frozenset({Reason.SIGNATURE_MISMATCH, Reason.MISSING_SIGNATURE, Reason.MALFORMED_SIGNATURE})
SECONDS_IN_DOUBT: Final = 5.0
"""How long a delivery waits for a secret that was requested; longer than the call usually takes."""
_MOST_WAITING: Final = 256
_SECONDS_BETWEEN_CONTRADICTIONS: Final = 1.0


class Verification:
    """Verifies one delivery per call; with a pinned scheme and proven secrets that is one signature check."""

    def __init__(
        self, keyring: Keyring, proofs: ProofRepository, *, clock: Clock, seconds_in_doubt: float = SECONDS_IN_DOUBT
    ) -> None:
        self._keyring = keyring
        self._proofs = proofs
        self._recorder = ProofRecorder(keyring, proofs, clock=clock)
        self._clock = clock
        self._seconds_in_doubt = seconds_in_doubt
        self._waiting = 0
        self._contradicted_at: float | None = None

    @property
    def is_read(self) -> bool:
        """True if the secrets have been read; before that, none is known."""
        return self._keyring.is_read

    def endpoint_id(self, path_key: str | None) -> str | None:
        """The id of our endpoint with this path key, None if there is none."""
        return self._keyring.snapshot.endpoint_id(path_key)

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
        is_final = result.reason in _FINAL_REASONS and not snapshot.in_doubt and not self._keyring.may_look
        return result if is_final and self._is_unknown_path(path_key) else None

    async def verify(self, headers: RawHeaders, body: bytes, path_key: str | None) -> Verified | Refused:
        """Verified or Refused, by all our secrets. `path_key`: the end of the request path, ours or not.

        Raises `DatabaseUnavailable` and `SecretPending` if that can't be decided now.
        """
        version = self._keyring.version
        result = await self._attempt(headers, body)
        if isinstance(result, Verified):
            return result
        result = await self._second_attempt(result, headers, body, path_key, version=version)
        endpoint_id = self.endpoint_id(path_key)
        if isinstance(result, Refused) and endpoint_id is not None:
            await self._record_contradiction(headers, body, endpoint_id)
        return result

    async def _second_attempt(
        self, first: Refused, headers: RawHeaders, body: bytes, path_key: str | None, *, version: int
    ) -> Verified | Refused:
        result: Verified | Refused = first
        # Another replica may have registered, rotated or pinned since our last read.
        if _is_worth_a_look(result) and await self._looked(path_key, version):
            result = await self._attempt(headers, body)
        endpoint_id = self.endpoint_id(path_key)
        if _is_worth_a_look(result) and endpoint_id in self._keyring.snapshot.in_doubt:
            result = await self._attempt_until_settled(headers, body, endpoint_id)
        return result

    def _is_unknown_path(self, path_key: str | None) -> bool:
        """True for a path that is not ours, if `verify` would not wait for a read for it either."""
        if path_key is None:
            return True
        return self._waiting >= _MOST_WAITING and self.endpoint_id(path_key) is None

    async def _looked(self, path_key: str | None, version: int) -> bool:
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

    async def _attempt(self, headers: RawHeaders, body: bytes) -> Verified | Refused:
        snapshot = self._keyring.snapshot
        if not snapshot.secrets:
            return Refused(Reason.NO_SECRET)
        if snapshot.verifier is not None:
            result = snapshot.verifier.verify(headers, body, self._clock.now())
            if isinstance(result, Verified) and _is_unproven(snapshot, result):
                await self._recorder.prove(snapshot, str(snapshot.scheme), result, body)
            return result
        proof = self._calibrated(headers, body)
        if proof is None:
            return Refused(Reason.SIGNATURE_MISMATCH if _is_signed(headers) else Reason.MISSING_SIGNATURE)
        if isinstance(proof.result, Refused):
            return proof.result
        pinned = await self._recorder.prove(snapshot, str(proof.scheme), proof.result, body)
        if pinned == str(proof.scheme):
            return proof.result
        return await self._attempt(headers, body)  # another replica has pinned another scheme first

    async def _attempt_until_settled(
        self, headers: RawHeaders, body: bytes, endpoint_id: str | None
    ) -> Verified | Refused:
        if self._waiting >= _MOST_WAITING:
            raise SecretPending
        self._waiting += 1
        try:
            async with asyncio.timeout(self._seconds_in_doubt):
                while endpoint_id in self._keyring.snapshot.in_doubt:
                    await self._keyring.refresh(self._keyring.version, is_patient=True)
        except TimeoutError:
            raise SecretPending from None
        finally:
            self._waiting -= 1
        return await self._attempt(headers, body)

    def _calibrated(self, headers: RawHeaders, body: bytes) -> DetectedScheme | None:
        return detect_scheme(headers, body, secrets=self._keyring.snapshot.secrets, now=self._clock.now())

    async def _record_contradiction(self, headers: RawHeaders, body: bytes, endpoint_id: str) -> None:
        """Log and count a refused delivery that another scheme than the pinned one proves; at most once a second."""
        snapshot, now = self._keyring.snapshot, self._clock.monotonic()
        if snapshot.verifier is None or not _is_due(self._contradicted_at, now):
            return
        self._contradicted_at = now
        proof = self._calibrated(headers, body)
        if proof is None or isinstance(proof.result, Refused):
            return
        CONTRADICTIONS.inc()
        proven = str(proof.scheme)
        log.error("signature.other_scheme_proven", pinned=str(snapshot.scheme), proven=proven, endpoint_id=endpoint_id)
        with suppress(DatabaseUnavailable):
            await self._proofs.record_other_scheme(endpoint_id, proven)


def _is_worth_a_look(result: Verified | Refused) -> bool:
    return isinstance(result, Refused) and result.reason in _WORTH_A_LOOK


def _is_unproven(snapshot: KeyringSnapshot, verified: Verified) -> bool:
    if not snapshot.stored:
        return False  # the secret comes from a setting, and the scheme is known
    return snapshot.stored[verified.secret_number].proven_at is None


def _is_signed(headers: RawHeaders) -> bool:
    return any(b"signature" in name for name, _ in headers)


def _is_due(last: float | None, now: float) -> bool:
    return last is None or now >= last + _SECONDS_BETWEEN_CONTRADICTIONS


class SecretPending(ServiceError):
    """A new secret was requested and is not stored yet, so the delivery can't be verified; Rivya has to resend it."""

    status = 503
    code = "secret_pending"

    def __init__(self) -> None:
        super().__init__("A new signing secret is on its way; send this again.", retry_after=2)


_TIMED: Final = frozenset({Reason.STALE_TIMESTAMP, Reason.FUTURE_TIMESTAMP})


class AlternateClocks:
    """Verifies by our clock, and deliveries that are too old or too new by it, by other clocks.

    Only a delivery with a right signature gets that far. If an old one is accepted again, its event changes nothing.
    """

    def __init__(self, ours: Verification, others: Sequence[Verification]) -> None:
        self._ours = ours
        self._others = others

    @property
    def is_read(self) -> bool:
        """True if the secrets have been read; before that, none is known."""
        return self._ours.is_read

    def endpoint_id(self, path_key: str | None) -> str | None:
        """The id of our endpoint with this path key, None if there is none."""
        return self._ours.endpoint_id(path_key)

    def verify_now(
        self, headers: RawHeaders, body: bytes, path_key: str | None, now: datetime
    ) -> Verified | Refused | None:
        """The result by our clock if it needs no I/O; None if `verify` has to decide."""
        result = self._ours.verify_now(headers, body, path_key, now)
        return None if result is not None and _is_of_another_time(result) else result

    async def verify(self, headers: RawHeaders, body: bytes, path_key: str | None) -> Verified | Refused:
        """Verified or Refused, by our clock or another one. Raises `ServiceError` if that can't be decided now."""
        result = await self._ours.verify(headers, body, path_key)
        if not _is_of_another_time(result):
            return result
        for other in self._others:
            second = await other.verify(headers, body, path_key)
            if isinstance(second, Verified):
                log.warning("delivery.taken_by_another_clock", offset=round(result.offset_seconds or 0))
                return second
        return result


def _is_of_another_time(result: Verified | Refused) -> bool:
    return isinstance(result, Refused) and result.reason in _TIMED
