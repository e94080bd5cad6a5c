"""Keeps exactly one endpoint of ours registered with Rivya, whoever starts, whatever is killed.

Every step begins at what is stored and ends with a commit (`app.endpoint.acts` decides which is next):

- An endpoint is written down first, `intended`, with a random key at the end of its path. A key that was just made
  is known to nobody: as long as no create was sent, no endpoint can carry it, so the create needs no list of what
  exists. A Rivya whose list can't be read therefore does not stand in the way of the first registration.
- Before the create is sent, `create_attempted_at` is committed. From then on Rivya may have the endpoint. A clear
  refusal, or a request that certainly never left, takes the mark back. Anything else (a time-out, a 5xx, an answer
  without a secret, a killed process) leaves it, and then only Rivya's list can tell: an endpoint whose path ends with
  our key is the one that was made. It is adopted: its one-time secret is lost, so it is given a new one. If a complete
  list lacks it, some seconds after the create was sent, nothing was made and a create is sent again.
  A list that fails, can't be read or has further pages says nothing, and nothing is done on it.
- Rivya's id and the sealed secret are stored in one transaction; from then on it is `serving`, and the endpoint it
  replaces, if any, is `retiring`: deleted at Rivya next, while its secrets are accepted for another day.

Only the process that holds the lease "endpoint" does any of this. The lease is renewed before each call that makes
something and before its result is stored, and it outlives a call's deadline. What a suspended process could still do
wrong is caught twice: the database has room for one intended and one serving row, and a serving endpoint's check
removes others that carry a key of ours.
"""

import random
from datetime import timedelta
from typing import Final

import structlog

from app.core.clock import Clock
from app.core.database import Database
from app.core.leases import Leases
from app.core.sealing import SealingKeys
from app.endpoint.acts import Act, Endpoint, current, next_act
from app.endpoint.failures import Undecided, read_failure
from app.endpoint.registry import Overtaken, Registry
from app.endpoint.steps import Means, Steps
from app.rivya.client import RivyaClient
from app.rivya.errors import RivyaError

LEASE: Final = "endpoint"
TERM: Final = timedelta(seconds=15)

_REST = 10.0
_OTHERS_AT_WORK = 1.0
_OFF = 3600.0
_MOST_STEPS = 12

log = structlog.stdlib.get_logger(__name__)


class LeaseLost(Exception):
    """Another process is at work on the registration."""


class Registrar:
    """Its `turn` is run by `core.loops`; with `public_url=None`, for an endpoint made by hand, it registers nothing."""

    def __init__(
        self,
        client: RivyaClient,
        database: Database,
        *,
        clock: Clock,
        leases: Leases,
        keys: SealingKeys,
        public_url: str | None,
    ) -> None:
        self._registry = Registry(database)
        self._clock = clock
        self._leases = leases
        self._public_url = public_url or ""
        self._steps = Steps(Means(client, self._registry, clock, keys, self._public_url, self._hold))
        self._failures = 0

    async def turn(self) -> float:
        """Take every step that is due; returns the seconds until the next look.

        Rivya's failures never leave it: they are kept as a code in the row. Raises `DatabaseUnavailable`.
        """
        if not self._public_url:
            return _OFF
        if self._next_act(await self._registry.endpoints()) is Act.REST:
            return _REST
        try:
            await self._hold()
        except LeaseLost:
            return _OTHERS_AT_WORK
        try:
            return await self._take_steps()
        except (LeaseLost, Overtaken):
            return _OTHERS_AT_WORK
        finally:
            await self._leases.release(LEASE)

    async def _take_steps(self) -> float:
        for _ in range(_MOST_STEPS):
            endpoints = await self._registry.endpoints()
            act = self._next_act(endpoints)
            if act is Act.REST:
                self._failures = 0
                return _REST
            try:
                await self._steps.take(act, endpoints)
            except (RivyaError, Undecided) as error:
                return await self._note_failure(current(endpoints), error)
        return _REST

    def _next_act(self, endpoints: list[Endpoint]) -> Act:
        return next_act(endpoints, public_url=self._public_url, checked_id=self._steps.checked_id)

    async def _note_failure(self, endpoint: Endpoint | None, error: RivyaError | Undecided) -> float:
        self._failures += 1
        failure = read_failure(error)
        pause = failure.pause(self._failures, jitter=random.uniform(-1, 1))  # noqa: S311 - spreads replicas, no secret
        log.warning(
            "endpoint.attempt_failed",
            endpoint_id=endpoint.id if endpoint is not None else None,
            code=failure.code,
            request_id=failure.request_id,
            failures=self._failures,
            pause=round(pause, 1),
        )
        if endpoint is not None:
            await self._registry.note_error(endpoint, code=failure.code, now=self._clock.now())
        return pause

    async def _hold(self) -> None:
        if not await self._leases.acquire(LEASE, now=self._clock.now(), term=TERM):
            raise LeaseLost
