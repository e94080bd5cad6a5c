"""Writes down what a delivery has proved, once for all that prove it at the same time."""

import asyncio

import structlog

from app.core.clock import Clock
from app.endpoint.keyring import Keyring
from app.endpoint.known import Known
from app.endpoint.proofs import Proofs, Proven
from app.rivya.payloads import read_delivery
from app.rivya.signature import Verified

log = structlog.stdlib.get_logger(__name__)

_Key = tuple[str, str | None, str | None]


class Proving:
    """The first deliveries under a new secret come together after a silence: one of them proves for the others."""

    def __init__(self, keyring: Keyring, proofs: Proofs, *, clock: Clock) -> None:
        self._keyring = keyring
        self._proofs = proofs
        self._clock = clock
        self._under_way: dict[_Key, asyncio.Task[str]] = {}

    async def prove(self, known: Known, scheme: str, verified: Verified, body: bytes) -> str:
        """Return the scheme that is pinned now, which may be another replica's, with the keyring up to date.

        Raises `DatabaseUnavailable`, to all who asked together.
        """
        secret = known.stored[verified.secret_number] if known.stored else None
        ids = (None, None) if secret is None else (secret.endpoint_id, secret.id)
        key = (scheme, *ids)
        task = self._under_way.get(key)
        if task is None:
            proven = Proven(scheme, read_delivery(body, header_id=verified.event_id).event_id, *ids)
            task = asyncio.create_task(self._write(proven, is_news=known.scheme is None), name="proof")
            self._under_way[key] = task
            task.add_done_callback(lambda done: self._forget(key, done))
        return await asyncio.shield(task)  # whoever hangs up must not take it from the others

    async def _write(self, proven: Proven, *, is_news: bool) -> str:
        is_pinning = self._keyring.wanted_scheme is None
        pinned = await self._proofs.prove(proven, now=self._clock.now(), is_pinning=is_pinning)
        await self._keyring.load()
        if is_news and pinned == proven.scheme:
            told = {"scheme": pinned, "event_id": proven.event_id, "endpoint_id": proven.endpoint_id}
            log.info("signature.scheme_proven", **told)
        return pinned

    def _forget(self, key: _Key, done: "asyncio.Task[str]") -> None:
        del self._under_way[key]
        if not done.cancelled():
            done.exception()  # seen: should everybody have hung up, nobody else will fetch it
