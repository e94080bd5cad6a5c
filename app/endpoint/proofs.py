"""Stores what deliveries prove: the pinned signature scheme, secrets that work, and contradictions."""

import asyncio
from dataclasses import dataclass
from datetime import datetime

import structlog
from sqlalchemy import and_, select, update
from sqlalchemy.exc import IntegrityError

from app.core.clock import Clock
from app.core.database import Database
from app.core.records import path_key
from app.endpoint.keyring import Keyring, KeyringSnapshot
from app.endpoint.models import Endpoint, State
from app.endpoint.repository import endpoint_secrets, endpoints, insert_endpoint, record_event
from app.rivya.payloads import read_delivery
from app.rivya.signature import Verified

log = structlog.stdlib.get_logger(__name__)

_PINS = select(endpoints.c.id, endpoints.c.state, endpoints.c.scheme).order_by(endpoints.c.id.desc()).with_for_update()


@dataclass(frozen=True, slots=True)
class DeliveryProof:
    """A delivery that a secret verified; the ids are None if the secret comes from a setting."""

    scheme: str
    event_id: str
    endpoint_id: str | None
    secret_id: str | None


class ProofRepository:
    """The proofs in the database; each method is one transaction. Of concurrent proofs, the first pins its scheme."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def prove(self, proof: DeliveryProof, *, now: datetime, is_pinning: bool) -> str:
        """Store the proof; returns the scheme that is pinned now, which another replica may have pinned.

        `is_pinning`: pin the scheme, because no setting gives it. A proof of another scheme than the pinned one
        changes nothing.
        """
        try:
            return await self._prove(proof, now=now, is_pinning=is_pinning)
        except IntegrityError:  # another replica has just inserted the manual endpoint
            return await self._prove(proof, now=now, is_pinning=is_pinning)

    async def _prove(self, proof: DeliveryProof, *, now: datetime, is_pinning: bool) -> str:
        async with self._database.transaction() as connection:
            rows = (await connection.execute(_PINS)).all()
            pinned: str | None = next((row.scheme for row in rows if row.scheme is not None), None)
            if is_pinning and pinned is not None and pinned != proof.scheme:
                return pinned
            endpoint_id = proof.endpoint_id or next((row.id for row in rows if row.state == State.MANUAL), None)
            if endpoint_id is None:  # its path key is random and used nowhere
                endpoint_id = await insert_endpoint(connection, State.MANUAL, path_key=path_key(), url="", now=now)
            this = endpoints.c.id == endpoint_id
            if is_pinning and not any(row.id == endpoint_id and row.scheme is not None for row in rows):
                pin = {"scheme": proof.scheme, "proven_at": now, "proven_by": proof.event_id}
                await connection.execute(update(endpoints).where(this).values(**pin))
                detail = f"{proof.scheme} by {proof.event_id}"
                await record_event(connection, endpoint_id, event="scheme_pinned", now=now, detail=detail)
            unproven = and_(endpoint_secrets.c.id == proof.secret_id, endpoint_secrets.c.proven_at.is_(None))
            await connection.execute(update(endpoint_secrets).where(unproven).values(proven_at=now))
            created = and_(this, endpoints.c.state == State.CREATED)
            proven = update(endpoints).where(created).values(state=State.PROVEN, state_since=now, updated_at=now)
            if (await connection.execute(proven)).rowcount:
                await record_event(connection, endpoint_id, event=State.PROVEN, now=now, detail=proof.event_id)
            return proof.scheme

    async def record_other_scheme(self, endpoint_id: str, scheme: str) -> None:
        """Count a refused delivery to this endpoint's path that another scheme than the pinned one proves."""
        counted = {"other_scheme": scheme, "other_scheme_count": endpoints.c.other_scheme_count + 1}
        async with self._database.transaction() as connection:
            await connection.execute(update(endpoints).where(endpoints.c.id == endpoint_id).values(**counted))

    async def unpin(self, endpoint: Endpoint, *, now: datetime) -> None:
        """Remove the pinned scheme for an admin; the next delivery whose scheme is detected pins it again."""
        nothing = {"scheme": None, "proven_at": None, "proven_by": None, "other_scheme": None, "other_scheme_count": 0}
        async with self._database.transaction() as connection:
            await connection.execute(_PINS)
            await connection.execute(update(endpoints).values(**nothing))
            its_secrets = endpoint_secrets.c.endpoint_id == endpoint.id
            await connection.execute(update(endpoint_secrets).where(its_secrets).values(proven_at=None))
            again = update(endpoints).where(endpoints.c.id == endpoint.id)
            await connection.execute(again.values(test_asked_at=None, updated_at=now))
            await record_event(connection, endpoint.id, event="scheme_unpinned", now=now, detail=endpoint.scheme)


_Key = tuple[str, bool, str | None, str | None]


class ProofRecorder:
    """Stores a proof once for all deliveries that bring it at the same time, as several do after an outage."""

    def __init__(self, keyring: Keyring, proofs: ProofRepository, *, clock: Clock) -> None:
        self._keyring = keyring
        self._proofs = proofs
        self._clock = clock
        self._under_way: dict[_Key, asyncio.Task[str]] = {}

    async def prove(
        self, snapshot: KeyringSnapshot, scheme: str, verified: Verified, body: bytes, *, is_pinning: bool
    ) -> str:
        """Store the proof and reload the keyring; returns the scheme that is pinned now, maybe by another replica.

        `is_pinning`: pin the scheme, unless a setting gives it.
        Raises `DatabaseUnavailable` to all callers that share the write.
        """
        secret = snapshot.stored[verified.secret_number] if snapshot.stored else None
        ids = (None, None) if secret is None else (secret.endpoint_id, secret.id)
        key = (scheme, is_pinning, *ids)
        task = self._under_way.get(key)
        if task is None:
            proof = DeliveryProof(scheme, read_delivery(body, header_id=verified.event_id).event_id, *ids)
            writing = self._write(proof, is_pinning=is_pinning, is_news=snapshot.scheme is None)
            task = asyncio.create_task(writing, name="proof")
            self._under_way[key] = task
            task.add_done_callback(lambda done: self._forget(key, done))
        return await asyncio.shield(task)  # a caller that is cancelled must not cancel the write for the others

    async def _write(self, proof: DeliveryProof, *, is_pinning: bool, is_news: bool) -> str:
        is_pinning = is_pinning and self._keyring.wanted_scheme is None
        pinned = await self._proofs.prove(proof, now=self._clock.now(), is_pinning=is_pinning)
        await self._keyring.load()
        if is_pinning and is_news and pinned == proof.scheme:
            fields = {"scheme": pinned, "event_id": proof.event_id, "endpoint_id": proof.endpoint_id}
            log.info("signature.scheme_proven", **fields)
        return pinned

    def _forget(self, key: _Key, done: "asyncio.Task[str]") -> None:
        del self._under_way[key]
        if not done.cancelled():
            done.exception()  # if all callers were cancelled, nobody else retrieves the exception and asyncio logs it
