"""Keeps exactly one endpoint of ours registered with Rivya, also across restarts and killed processes.

Every step starts from what is stored and ends with a commit (`app.endpoint.models` decides which is next):

- An endpoint is stored first, as `intended`, with a new random key at the end of its path. No endpoint at Rivya can
  have this key yet, so the first registration works even if Rivya's list of endpoints can't be read.
- `create_attempted_at` is committed before the create is sent. From then on the endpoint may exist at Rivya. A clear
  refusal, or a request that was certainly not sent, removes the mark. After anything else (a time-out, a 5xx, an
  answer without a secret, a killed process) only Rivya's list can decide: an endpoint whose path ends with our key is
  ours. It is adopted and gets a new secret, because the first one is lost. If a complete list lacks it some seconds
  after the create was sent, the create is sent again. A list that fails, can't be read or has further pages decides
  nothing, and no step is taken.
- Rivya's id and the encrypted secret are stored in one transaction: the endpoint is now `created`, and the one that it
  replaces is `retiring`. A test delivery is requested. The first delivery to arrive proves secret and scheme
  (`app.endpoint.verification`); a `proven` endpoint becomes `serving`, and the replaced one is deleted at Rivya.
- A rotation works alike: `rotation_attempted_at` is committed before the call, and removed after a clear refusal or in
  the transaction that stores the new secret. A rotation in doubt is repeated, and deliveries wait for it meanwhile.

Only the process that holds the lease "endpoint" takes these steps. The lease is renewed before each call that creates
something and before its result is stored. Two safeguards limit a process that was suspended: the database allows one
row in each state that matters, and a check removes other endpoints that have a key of ours.
"""

import random
from datetime import timedelta
from typing import Final

import structlog
from prometheus_client import Gauge

from app.core.clock import Clock
from app.core.database import Database
from app.core.encryption import SecretBox
from app.core.errors import HealthCheck
from app.core.leases import Leadership, LeaseLost, Leases
from app.endpoint.errors import OutcomeUnknown, read_failure
from app.endpoint.inspection import StepContext, describe_orphans
from app.endpoint.models import Endpoint, Step, current, live, next_step
from app.endpoint.repository import EndpointRepository, StaleState
from app.endpoint.steps import Steps
from app.rivya.client import RivyaClient
from app.rivya.errors import RivyaError

LEASE: Final = "endpoint"
TERM: Final = timedelta(seconds=15)
"""The duration of the lease; longer than a call's deadline (10 s), so that no second process repeats a slow call."""
IDLE_SECONDS: Final = 1.0
PROOF_SECONDS: Final = 0.25
STANDBY_SECONDS: Final = 1.0

_OFF = 3600.0
_MOST_STEPS = 12

log = structlog.stdlib.get_logger(__name__)

LEADER = Gauge("receiver_leader", "1 while this process looks after the registration.")


class Reconciler:
    """Keeps one endpoint registered; with `public_url=None` the endpoint is manual, and nothing is registered."""

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
        self._repository = EndpointRepository(database)
        self._clock = clock
        self._public_url = public_url or ""
        self._leadership = Leadership(leases, LEASE, clock=clock, term=term, gauge=LEADER)
        hold = self._leadership.hold
        context = StepContext(client, self._repository, clock, keys, self._public_url, secret_overlap, hold)
        self._steps = Steps(context)
        self._check_every = check_every
        self._rotate_every = rotate_every
        self._check_at = 0.0
        self._failures = 0
        self._failed_until = 0.0

    async def run_once(self) -> float:
        """Take every step that is due, if this process holds the lease; returns the seconds until the next run.

        Failures of Rivya are stored as a code in the row, not raised. Raises `DatabaseUnavailable`.
        """
        if not self._public_url:
            return _OFF
        was_leading = self._leadership.is_held
        if not await self._leadership.lead():
            return STANDBY_SECONDS
        if not was_leading:
            self._check_at = self._clock.monotonic()
        try:
            return await self._take_steps()
        except (LeaseLost, StaleState):
            return STANDBY_SECONDS

    @property
    def retry_in(self) -> float:
        """Seconds until Rivya is called again after a failure; 0 if no pause is left."""
        return max(self._failed_until - self._clock.monotonic(), 0.0)

    async def health_checks(self) -> list[HealthCheck]:
        """The check for orphans, in the process that has the lease."""
        return [describe_orphans(self._steps.orphans)] if self._public_url and self._leadership.is_held else []

    async def stop(self) -> None:
        """Release the lease, so that another process can take over at once. Raises `DatabaseUnavailable`."""
        await self._leadership.release()

    async def _take_steps(self) -> float:
        for _ in range(_MOST_STEPS):
            endpoints, now = await self._repository.endpoints(), self._clock.now()
            step = next_step(
                endpoints,
                now=now,
                public_url=self._public_url,
                is_check_due=self._clock.monotonic() >= self._check_at,
                rotate_every=self._rotate_every,
            )
            if step is Step.IDLE:
                self._failures = 0
                wanted = live(endpoints)
                return PROOF_SECONDS if wanted is not None and wanted.is_awaiting_proof(now) else IDLE_SECONDS
            if self.retry_in > 0 and step is not Step.SERVE:
                return min(self.retry_in, IDLE_SECONDS)
            try:
                await self._steps.take(step, endpoints)
            except (RivyaError, OutcomeUnknown) as error:
                await self._record_failure(current(endpoints), error)
                return min(self.retry_in, IDLE_SECONDS)
            if step is Step.CHECK:
                jitter = random.uniform(0.8, 1.2)  # noqa: S311 - spreads receivers over time, no secret
                self._check_at = self._clock.monotonic() + self._check_every.total_seconds() * jitter
        return IDLE_SECONDS

    async def _record_failure(self, endpoint: Endpoint | None, error: RivyaError | OutcomeUnknown) -> None:
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
        if endpoint is not None and endpoint.last_error != failure.code:
            await self._repository.change(endpoint, now=self._clock.now(), last_error=failure.code)
