"""Keeps exactly one endpoint of ours registered with Rivya, whoever starts, whatever is killed.

Every step begins at what is stored and ends with a commit (`app.endpoint.models` decides which is next):

- An endpoint is written down first, `intended`, with a random key at the end of its path. A key that was just made
  is known to nobody: as long as no create was sent, no endpoint can carry it, so the create needs no list of what
  exists. A Rivya whose list can't be read therefore does not stand in the way of the first registration.
- Before the create is sent, `create_attempted_at` is committed. From then on Rivya may have the endpoint. A clear
  refusal, or a request that certainly never left, takes the mark back. Anything else (a time-out, a 5xx, an answer
  without a secret, a killed process) leaves it, and then only Rivya's list can tell: an endpoint whose path ends with
  our key is the one that was made. It is adopted: its one-time secret is lost, so it is given a new one. If a complete
  list lacks it, some seconds after the create was sent, nothing was made and a create is sent again.
  A list that fails, can't be read or has further pages says nothing, and nothing is done on it.
- Rivya's id and the sealed secret are stored in one transaction: it is `created`, and the endpoint it replaces, if
  any, is `retiring`. A test delivery is asked for. Whichever delivery comes first proves secret and scheme (intake does
  that: `app.endpoint.verification`); a `proven` endpoint serves, and what it replaced is deleted at Rivya.
- A rotation is the same in small: `rotation_attempted_at` is committed before the call and taken back only in the
  transaction that stores the new secret. A rotation in doubt is repeated, and deliveries wait for it meanwhile.

Only the process that holds the lease "endpoint" does any of this. The lease is renewed before each call that makes
something and before its result is stored, and it outlives a call's deadline. What a suspended process could still do
wrong is caught twice: the database has room for one row in each state that matters, and a check removes other
endpoints that carry a key of ours.
"""

import random
from datetime import timedelta
from typing import Final

import structlog

from app.core.clock import Clock
from app.core.database import Database
from app.core.encryption import SecretBox
from app.core.leases import Leadership, LeaseLost, Leases
from app.endpoint.errors import Undecided, read_failure
from app.endpoint.inspection import Means
from app.endpoint.metrics import LEADER
from app.endpoint.models import Act, Endpoint, current, live, next_act
from app.endpoint.repository import Overtaken, Registry, Rotations
from app.endpoint.steps import Steps
from app.rivya.client import RivyaClient
from app.rivya.errors import RivyaError

LEASE: Final = "endpoint"
TERM: Final = timedelta(seconds=15)
"""Of the lease; longer than the deadline of a call (10 s), so that a slow call is not done twice."""
REST: Final = 1.0
AWAITING_PROOF: Final = 0.25
OTHERS_AT_WORK: Final = 1.0

_OFF = 3600.0
_MOST_STEPS = 12
_SEEN_TO = (Act.CREATE, Act.RECOVER, Act.CHECK)
"""What leaves nothing to look at for a while."""

log = structlog.stdlib.get_logger(__name__)


class Registrar:
    """Keeps one endpoint registered; registers nothing with `public_url=None`, for an endpoint made by hand."""

    def __init__(  # noqa: PLR0913 - settings, one by one
        self,
        client: RivyaClient,
        database: Database,
        *,
        clock: Clock,
        leases: Leases,
        keys: SecretBox,
        public_url: str | None,
        term: timedelta = TERM,
        check_every: timedelta = timedelta(minutes=5),
        secret_overlap: timedelta = timedelta(hours=72),
        rotate_every: timedelta | None = None,
    ) -> None:
        self._registry = Registry(database)
        self._clock = clock
        self._public_url = public_url or ""
        self._leadership = Leadership(leases, LEASE, clock=clock, term=term, gauge=LEADER)
        rotations, hold = Rotations(database), self._leadership.hold
        means = Means(client, self._registry, rotations, clock, keys, self._public_url, secret_overlap, hold)
        self._steps = Steps(means)
        self._check_every = check_every
        self._rotate_every = rotate_every
        self._check_at = 0.0
        self._failures = 0
        self._failed_until = 0.0

    async def run_once(self) -> float:
        """Take every step that is due, if this process leads; returns the seconds until the next look.

        Rivya's failures never leave it: they are kept as a code in the row. Raises `DatabaseUnavailable`.
        """
        if not self._public_url:
            return _OFF
        was_leading = self._leadership.is_held
        if not await self._leadership.lead():
            return OTHERS_AT_WORK
        if not was_leading:
            self._check_at = self._clock.monotonic()
        try:
            return await self._take_steps()
        except (LeaseLost, Overtaken):
            return OTHERS_AT_WORK

    @property
    def retry_in(self) -> float:
        """Seconds until Rivya is called again after a failure, 0 if nothing failed."""
        return max(self._failed_until - self._clock.monotonic(), 0.0)

    async def stop(self) -> None:
        """Let another process lead at once. Raises `DatabaseUnavailable`."""
        await self._leadership.release()

    async def _take_steps(self) -> float:
        for _ in range(_MOST_STEPS):
            endpoints = await self._registry.endpoints()
            act = self._next_act(endpoints)
            if act is Act.REST:
                return self._rest(endpoints)
            if self.retry_in > 0 and act is not Act.SERVE:
                return min(self.retry_in, REST)
            try:
                await self._steps.take(act, endpoints)
            except (RivyaError, Undecided) as error:
                await self._record_failure(current(endpoints), error)
                return min(self.retry_in, REST)
            if act in _SEEN_TO:
                self._plan_check()
        return REST

    def _next_act(self, endpoints: list[Endpoint]) -> Act:
        return next_act(
            endpoints,
            now=self._clock.now(),
            public_url=self._public_url,
            is_check_due=self._clock.monotonic() >= self._check_at,
            rotate_every=self._rotate_every,
        )

    def _rest(self, endpoints: list[Endpoint]) -> float:
        self._failures = 0
        wanted = live(endpoints)
        awaits = wanted is not None and wanted.is_awaiting_proof(self._clock.now())
        return AWAITING_PROOF if awaits else REST

    def _plan_check(self) -> None:
        jitter = random.uniform(0.8, 1.2)  # noqa: S311 - spreads receivers over time, no secret
        self._check_at = self._clock.monotonic() + self._check_every.total_seconds() * jitter

    async def _record_failure(self, endpoint: Endpoint | None, error: RivyaError | Undecided) -> None:
        self._failures += 1
        failure = read_failure(error)
        pause = failure.pause(self._failures, jitter=random.uniform(-1, 1))  # noqa: S311 - spreads replicas, no secret
        self._failed_until = self._clock.monotonic() + pause
        log.warning(
            "endpoint.attempt_failed",
            endpoint_id=endpoint.id if endpoint is not None else None,
            code=failure.code,
            request_id=failure.request_id,
            failures=self._failures,
            pause=round(pause, 1),
        )
        if endpoint is not None:
            await self._registry.record_error(endpoint, code=failure.code, now=self._clock.now())
