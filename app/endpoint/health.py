"""Whether callbacks can be counted on: how deliveries fare at our endpoint, across all replicas."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime

from sqlalchemy import select, update

from app.core.clock import Clock
from app.core.database import Database
from app.core.errors import DatabaseUnavailable, Finding
from app.endpoint.endpoint import Endpoint, current, live
from app.endpoint.findings import describe
from app.endpoint.keyring import Keyring
from app.endpoint.measures import ENDPOINT_PROVEN, REFUSALS_SINCE_VERIFIED, RIVYA_FAILURES
from app.endpoint.registry import Registry
from app.endpoint.tables import endpoints
from app.endpoint.tally import Fared, Tally

_SECONDS_BETWEEN_FLUSHES = 1.0


class EndpointHealth:
    """Takes note of deliveries without any I/O; `turn` writes it down and looks at what all replicas wrote."""

    def __init__(self, database: Database, keyring: Keyring, *, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._registry = Registry(database)
        self._keyring = keyring
        self._tallies: dict[str, Tally] = {}
        self._endpoints: Sequence[Endpoint] = ()

    def note_verified(self, endpoint_id: str | None, at: datetime) -> None:
        """A delivery was verified at `at`."""
        if endpoint_id is not None:
            self._tally(endpoint_id).note_verified(at)

    def note_refused(self, endpoint_id: str | None, at: datetime) -> None:
        """A delivery was refused; elsewhere than at a secret path that says nothing, since any stranger can try."""
        if endpoint_id is not None:
            self._tally(endpoint_id).note_refused(at)

    def callbacks_expected(self) -> bool:
        """Callbacks will come, as far as the last look told: an endpoint serves, and is not being refused."""
        if self._keyring.is_fixed:
            return True
        wanted = live(self._endpoints)
        return wanted is not None and wanted.is_counted_on(self._clock.now())

    async def turn(self) -> float:
        """Write down what was noted, then look; returns the seconds until the next turn.

        Raises `DatabaseUnavailable`, and then forgets nothing.
        """
        if not self._keyring.is_fixed:
            await self._flush()
            self._endpoints = await self._registry.endpoints()
            self._measure(current(self._endpoints))
        return _SECONDS_BETWEEN_FLUSHES

    async def findings(self) -> list[Finding]:
        """For /readyz; from the last look where the database is away."""
        if not self._keyring.is_fixed:
            with suppress(DatabaseUnavailable):
                self._endpoints = await self._registry.endpoints()
        return describe(self._endpoints, self._keyring, now=self._clock.now())

    def _measure(self, endpoint: Endpoint | None) -> None:
        REFUSALS_SINCE_VERIFIED.set(0 if endpoint is None else endpoint.refusals)
        ENDPOINT_PROVEN.set(endpoint is not None and endpoint.secret_proven_at is not None)
        RIVYA_FAILURES.set(0 if endpoint is None else endpoint.failure_count)

    def _tally(self, endpoint_id: str) -> Tally:
        return self._tallies.setdefault(endpoint_id, Tally())

    async def _flush(self) -> None:
        taken, self._tallies = self._tallies, {}
        if not taken:
            return
        try:
            await self._write(taken)
        except BaseException:
            for endpoint_id, tally in taken.items():
                self._tallies[endpoint_id] = tally.added(self._tallies.get(endpoint_id, Tally()))
            raise

    async def _write(self, taken: dict[str, Tally]) -> None:
        health = (endpoints.c.last_verified_at, endpoints.c.last_refused_at, endpoints.c.refusals)
        async with self._database.transaction() as connection:
            for endpoint_id in sorted(taken):
                this = endpoints.c.id == endpoint_id
                row = (await connection.execute(select(*health).where(this).with_for_update())).one_or_none()
                if row is not None:
                    news = asdict(taken[endpoint_id].merged(Fared(*row)))
                    await connection.execute(update(endpoints).where(this).values(**news))
