"""Registration on a real database against a sandbox Rivya over HTTP: replicas are started, killed and looked at."""

import contextlib
import itertools
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from cryptography.fernet import Fernet
from sqlalchemy import Table, select

from app.core.database import Database
from app.core.encryption import SecretBox
from app.core.leases import Leases
from app.endpoint.health import EndpointHealth
from app.endpoint.keyring import Keyring
from app.endpoint.models import LIVE
from app.endpoint.proofs import ProofRepository
from app.endpoint.reconciler import TERM, Reconciler
from app.endpoint.repository import endpoint_secrets, endpoints
from app.endpoint.verification import Verification
from app.intake.webhook import ROUTE
from app.rivya.client import RivyaClient
from app.rivya.schemes import Scheme, parse_scheme
from app.rivya.signature import Refused, Verified
from app.sandbox.accounts import DEFAULT_KEY
from app.sandbox.faults import ApiFault
from app.sandbox.state import Sandbox
from tests.support.clock import ManualClock
from tests.support.sandbox_harness import Received, World, world

SCHEME = parse_scheme("timestamped")
ENCRYPTION_KEY = Fernet.generate_key().decode()


@dataclass
class Replica:
    """What one process has of registration."""

    database: Database
    client: RivyaClient
    reconciler: Reconciler
    keyring: Keyring
    verification: Verification
    health: EndpointHealth

    async def learn(self) -> Keyring:
        await self.keyring.run_once()
        return self.keyring

    async def accept(self, received: Received) -> Verified | Refused:
        """Verify as intake does, at the path to which it came."""
        return await self.verification.verify(
            raw(received), received.body, received.path.rpartition(ROUTE)[2].strip("/") or None
        )


@dataclass
class RegistrationHarness:
    """A sandbox with an inbox at the public URL, and a database that all replicas share."""

    world: World
    clock: ManualClock
    database_url: str
    public_url: str
    base_url: str
    _stack: contextlib.AsyncExitStack
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    @property
    def sandbox(self) -> Sandbox:
        return self.world.sandbox

    @property
    def database(self) -> Database:
        database = Database(self.database_url)
        self._stack.push_async_callback(database.dispose)
        return database

    async def start(
        self,
        *,
        public_url: str | None = "",
        api_key: str = DEFAULT_KEY,
        base_url: str = "",
        encryption_keys: Sequence[str] = (ENCRYPTION_KEY,),
        fixed_secret: str | None = None,
        scheme: Scheme | None = SCHEME,
        after: float = TERM.total_seconds() + 1,
        **options: Any,
    ) -> Replica:
        """A process that starts `after` seconds, when the lease of one before it has run out.

        It is killed by not being asked for a turn any more.
        """
        self.clock.advance(seconds=after)
        client = await self._stack.enter_async_context(RivyaClient(base_url or self.base_url, api_key))
        database, keys = self.database, SecretBox(encryption_keys)
        leases = Leases(database, holder=f"process-{next(self._numbers)}")
        place = self.public_url if public_url == "" else public_url
        reconciler = Reconciler(
            client, database, clock=self.clock, leases=leases, keys=keys, public_url=place, **options
        )
        keyring = Keyring(database, clock=self.clock, keys=keys, scheme=scheme, fixed_secret=fixed_secret)
        verification = Verification(keyring, ProofRepository(database), clock=self.clock)
        health = EndpointHealth(database, keyring, clock=self.clock)
        return Replica(database, client, reconciler, keyring, verification, health)

    def fault(self, route: str, **how: Any) -> None:
        self.sandbox.faults.api.append(ApiFault(route=route, **how))

    def calls(self, route: str) -> int:
        return self.sandbox.calls.counts[route]

    def at_rivya(self) -> list[Any]:
        return list(self.sandbox.endpoints.by_id.values())

    async def rows(self, table: Table = endpoints) -> list[dict[str, Any]]:
        async with self.database.read() as connection:
            rows = await connection.execute(select(table).order_by(table.c.id))
            return [dict(row) for row in rows.mappings()]

    async def row(self) -> dict[str, Any]:
        [row] = await self.rows()
        return row

    async def secrets(self) -> list[dict[str, Any]]:
        return await self.rows(endpoint_secrets)

    async def settle(self, replica: Replica) -> Replica:
        """Register, let the test delivery arrive, and finish."""
        await replica.reconciler.run_once()
        await replica.learn()
        assert isinstance(await replica.accept(self.world.inbox.received[-1]), Verified)
        await replica.reconciler.run_once()
        return replica

    async def deliver(self) -> Received:
        """The bytes of a delivery that the sandbox makes now, as they reached the public URL."""
        await self.sandbox.settle(await self.world.create())
        return self.world.inbox.received[-1]

    async def live(self) -> dict[str, Any]:
        """The row of the one endpoint that Rivya is to deliver to."""
        [row] = [row for row in await self.rows() if row["state"] in LIVE]
        return row


def verify(keyring: Keyring, received: Received, now: datetime) -> Verified | Refused:
    assert keyring.snapshot.verifier is not None
    return keyring.snapshot.verifier.verify(raw(received), received.body, now)


def raw(received: Received) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode("latin-1")) for name, value in received.headers.items()]


@contextlib.asynccontextmanager
async def room(database_url: str) -> AsyncIterator[RegistrationHarness]:
    clock = ManualClock()
    async with contextlib.AsyncExitStack() as stack:
        w = await stack.enter_async_context(world(clock=clock))
        base_url = str(w.client.base_url).rstrip("/")
        yield RegistrationHarness(w, clock, database_url, w.inbox.url, base_url, stack)
