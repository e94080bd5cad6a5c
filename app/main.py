"""Puts the parts together: the only place where they meet."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import structlog

from app.api import deliveries, errors, generations, health, metrics, schemas, usage
from app.api.waiting import Waiting
from app.core.auth import Access
from app.core.background import BackgroundLoops
from app.core.clock import Clock, SystemClock
from app.core.database import Database
from app.core.encryption import DecryptionFailed
from app.core.errors import DatabaseUnavailable, HealthCheck
from app.core.leases import Leases
from app.core.migrations import migrate_database
from app.core.settings import Settings
from app.core.waiters import Waiters
from app.endpoint import assembly as endpoint
from app.endpoint.verification import AlternateClocks
from app.fastpath import generation_read
from app.fastpath.application import FastPathApp
from app.fastpath.delivery import FastDelivery
from app.gateway import assembly as gateway
from app.gateway import routes as gateway_route
from app.intake import rejections
from app.intake.rejections import Rejections
from app.intake.webhook import Intake
from app.ledger.queries import Queries
from app.ledger.recorder import Changes, Recorder
from app.ledger.write_queue import WRITERS, WriteQueue
from app.operations.operator import Operator
from app.polling.categories import Categories
from app.polling.poller import Poller, PollExecutor
from app.polling.schedule import Schedule, Timing
from app.ratelimit.budget import polls_at_once
from app.ratelimit.limiter import RateLimiter
from app.rivya.client import RivyaClient
from app.submission import routes as submission
from app.submission.sender import Retrier, Sender
from app.submission.service import Submitter
from app.submission.store import Submissions

log = structlog.stdlib.get_logger(__name__)


class Service:
    """Every part of one process, and their order of starting and stopping. Raises `SchemeInvalid`."""

    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        self.settings = settings
        self.clock = clock or SystemClock()
        self.database = Database(settings.database_url)
        self._key, relayed = settings.rivya_api_key.get_secret_value(), settings.receiver_rivya_concurrency
        polls = polls_at_once(settings.receiver_poll_rate)
        self.client = RivyaClient(settings.rivya_base_url, self._key, polls=polls, relayed_calls=relayed)
        self.access = Access(settings.receiver_api_tokens)
        self.loops = BackgroundLoops(self.clock)
        self._not_started: list[HealthCheck] = []
        self._attempts = 0
        self.changes = Changes()
        self.queries = Queries(self.database)
        self.waiting = Waiting(self.queries, self.changes)
        self._join_endpoint()
        self._join_polling()
        self._join_ledger()
        self._join_submission()
        self.app = self._application()
        self.give_up: Callable[[str], None] = log.error
        """Is told why the service can never become ready."""

    def _join_endpoint(self) -> None:
        leases = Leases(self.database, holder=secrets.token_hex(8))
        self.endpoint = endpoint.assemble(
            self.client, self.database, self.settings, clock=self.clock, leases=leases, access=self.access
        )

    def _join_polling(self) -> None:
        settings = self.settings
        self.limiter = RateLimiter(self.database, self.clock, rate=settings.receiver_poll_rate, api_key=self._key)
        self.gateway = gateway.assemble(self.client, settings, self.clock, note=self.limiter.record_error)
        self.categories = Categories(self.gateway.catalogue.categories, self.limiter, self.clock)
        schedule = Schedule(
            interval=settings.receiver_poll_interval,
            horizon=settings.receiver_poll_horizon,
            grace=settings.receiver_poll_grace,
        )
        self.timing = Timing(schedule, self.categories, callbacks_expected=self.endpoint.health.callbacks_expected)

    def _join_ledger(self) -> None:
        ledger = Recorder(self.database, first_poll=self.timing.first_poll, changes=self.changes)
        self.batch = WriteQueue(ledger, self.clock, writers=1 if self.database.is_sqlite else WRITERS)
        polling = PollExecutor(self.client, self.batch, timing=self.timing, limiter=self.limiter, clock=self.clock)
        self.poller = Poller(self.database, polling, timing=self.timing, limiter=self.limiter, clock=self.clock)
        self.operator = Operator(self.settings, self.database, clock=self.clock, poll_errors=polling.errors_in_a_row)
        self.refusals = Rejections(self.database)
        ours, *second = self.endpoint.verifications
        self.intake = Intake(
            AlternateClocks(ours, second),
            self.endpoint.health,
            self.refusals,
            self.batch.put,
            clock=self.clock,
            most_bytes=self.settings.receiver_max_body_bytes,
            probed=self.endpoint.probe_key.answer,
        )

    def _join_submission(self) -> None:
        store, waiters = Submissions(self.database), Waiters()
        sender = Sender(self.client, self.batch, store, self.clock, waiters=waiters)
        self.submitter = Submitter(store, sender, self.limiter, self.clock, waiters=waiters)
        self.retrier = Retrier(store, sender, self.limiter, self.clock)

    def _application(self) -> FastPathApp:
        app = FastPathApp(
            title="rivya-receiver",
            description=schemas.DESCRIPTION,
            openapi_tags=schemas.TAGS,
            lifespan=lambda _: self.running(),
            redirect_slashes=False,
        )
        errors.install(app)
        app.add_fast_route(self.intake.path, self.intake, handler=FastDelivery(self.intake, self.batch.submit))
        app.add_fast_route(
            generation_read.PREFIX, handler=generation_read.FastGenerationRead(self.waiting, self.access)
        )
        app.include_router(submission.router(self.submitter, self.access))
        app.include_router(
            generations.router(self.queries, self.access, self.waiting, self.batch.put, clock=self.clock)
        )
        app.include_router(gateway_route.router(self.gateway, self.access), responses=schemas.errors(400, 404, 413))
        app.include_router(deliveries.router(self.queries, self.access))
        app.include_router(usage.router(self.queries, self.access, clock=self.clock))
        for router in self.endpoint.routers:
            app.include_router(router, responses=schemas.errors(404))
        app.include_router(rejections.router(self.refusals, self.access), responses=schemas.errors())
        tasks = (self._unstarted, self.loops.health_checks, self.batch.health_checks)
        parts = (self.endpoint.health.health_checks, self.limiter.health_checks, self.operator.watch.health_checks)
        app.include_router(health.router([health.database_check(self.database), *tasks, *parts]))
        app.include_router(metrics.router(self.queries, clock=self.clock))
        schemas.complete(app)
        return app

    async def prepare(self) -> None:
        """Migrate, and read what must be known before the first request.

        Raises `DatabaseUnavailable`, and `DecryptionFailed` where a stored secret can't be opened.
        """
        if self.settings.receiver_migrate_on_start:
            await migrate_database(self.database)
        await self.endpoint.keyring.load()
        await self.endpoint.health.run_once()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the loops beside the requests; at the end finish what is under way, in the order of who feeds whom."""
        await self.batch.start()
        starting = self.loops.start("start", self._start, longest_pause=5.0)
        try:
            yield
        finally:
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            await self.loops.stop()
            for leading in (self.endpoint.registrar, self.operator.retention):
                with suppress(DatabaseUnavailable):
                    await leading.stop()
            await self.poller.stop()
            await self.submitter.stop()
            await self.batch.stop()
            await self.close()

    def release_callers(self) -> None:
        """The process is about to stop: long polls are answered now, creates as soon as Rivya answers or soon after."""
        self.waiting.stop()
        self.submitter.release()
        self.gateway.stream_deadline.start()

    async def _start(self) -> None:
        """Prepare and start the loops; run again until it succeeds. Requests are answered meanwhile."""
        self._attempts += 1
        try:
            await self.prepare()
        except DecryptionFailed as error:
            self.give_up(f"RECEIVER_ENCRYPTION_KEYS: {error}")
            return
        except Exception as error:
            self._not_started = [health.not_started(error)]
            if isinstance(error, DatabaseUnavailable):
                log.warning("start.database_unavailable", attempt=self._attempts, reason=error.reason)
            raise
        self._not_started = []
        ours = (self.endpoint.registrar, self.endpoint.keyring, self.endpoint.health)
        others = (self.poller, self.categories, self.retrier, self.waiting, self.refusals)
        for part in (*ours, *others, *self.operator.loops):
            self.loops.start(type(part).__name__, part.run_once)

    async def _unstarted(self) -> list[HealthCheck]:
        return self._not_started

    async def close(self) -> None:
        """Close every connection."""
        await self.gateway.catalogue.aclose()
        await self.client.aclose()
        await self.database.dispose()
