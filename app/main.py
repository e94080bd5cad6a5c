"""The composition root: builds all parts of a process, starts and stops them."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from functools import partial
from importlib.metadata import version

import httpx
import structlog
from fastapi import APIRouter, FastAPI

from app.api import deliveries, errors, events, generations, health, metrics, schemas, usage
from app.api.waiting import Waiting
from app.console import routes as console_routes
from app.console import static_files
from app.console.pages import Console
from app.console.sign_in import FailedSignIns
from app.console.static_files import StaticFiles
from app.core.audit import Audit
from app.core.auth import Access
from app.core.background import BackgroundLoops
from app.core.clock import Clock, SystemClock, alternate_clocks
from app.core.clock_sync import ClockSync
from app.core.database import Database, DatabaseInUse
from app.core.encryption import DecryptionFailed, SecretBox
from app.core.errors import DatabaseUnavailable, HealthCheck
from app.core.leases import Leases
from app.core.migrations import migrate_database
from app.core.settings import Settings
from app.core.waiters import Waiters
from app.endpoint import routes as endpoint
from app.endpoint.health import EndpointHealth
from app.endpoint.keyring import Keyring
from app.endpoint.probe import ProbeKey
from app.endpoint.proofs import ProofRepository
from app.endpoint.reachability import Reachability
from app.endpoint.reconciler import Reconciler
from app.endpoint.repository import EndpointRepository
from app.endpoint.service import EndpointCommands, EndpointQueries, Orphans
from app.endpoint.verification import Verification
from app.fastpath.application import GENERATIONS, FastDelivery, FastGenerationRead, FastPathApp
from app.fastpath.settlement import SettlingRecord
from app.gateway import routes as gateway
from app.gateway.models_cache import ModelsCache
from app.gateway.service import Balance, Gateway
from app.gateway.streaming import ConcurrencyLimit
from app.gateway.upstream import Relay, call_timeouts
from app.intake import rejections
from app.intake.rejections import Rejections
from app.intake.webhook import Intake
from app.ledger.callbacks import Callbacks
from app.ledger.feed import Feed, FeedTail
from app.ledger.feed_hints import feed_hints
from app.ledger.metrics import FAILED_POLLS, REFUSALS, Activity
from app.ledger.postgres import PostgresRecord
from app.ledger.queries import Queries
from app.ledger.recorder import Changes, Recorder
from app.ledger.write_queue import WRITERS, WriteQueue
from app.notifications import routes as webhooks
from app.notifications.claims import Claims
from app.notifications.client import NotificationClient
from app.notifications.dispatcher import Dispatcher
from app.notifications.repository import NotificationRepository
from app.notifications.sender import NotificationSender, RequestBuilder
from app.notifications.service import Webhooks
from app.operations import routes as operator_routes
from app.operations.alarms import AlarmEvents, AlarmMonitor, AlarmQuery, alarm_thresholds
from app.operations.commands import GenerationCommands, Replay
from app.operations.replicas import Heartbeat
from app.operations.retention import MOST, SHARE, SHARE_OF_ONE_WRITER, Pruning, Retention
from app.operations.usage_rollup import UsageRollup
from app.polling.poller import Poller
from app.polling.schedule import Categories, Schedule
from app.ratelimit.budget import polls_at_once
from app.ratelimit.limiter import RateLimiter
from app.rivya.client import RivyaClient
from app.rivya.schemes import wanted_scheme
from app.submission import routes as submission
from app.submission.sender import Retrier, Sender
from app.submission.service import SubmissionService
from app.submission.store import SubmissionRepository
from app.tokens import routes as tokens
from app.tokens.repository import TokenRepository
from app.tokens.service import NameClash, Tokens
from app.tokens.sessions import Sessions
from app.tokens.spending import Spending

log = structlog.stdlib.get_logger(__name__)

_SETTING_OF = {DatabaseInUse: "", DecryptionFailed: "RECEIVER_ENCRYPTION_KEYS: ", NameClash: "RECEIVER_API_TOKENS: "}


class Service:
    """All parts of one process, and the order of their start and stop. Raises `SchemeInvalid`.

    `may_share_file`: also start on a SQLite file that another process serves on.
    """

    def __init__(self, settings: Settings, clock: Clock | None = None, *, may_share_file: bool = False) -> None:
        self.settings = settings
        self.clock = clock or SystemClock()
        self.database = Database(settings.database_url)
        self._key, relayed = settings.rivya_api_key.get_secret_value(), settings.receiver_rivya_concurrency
        polls = polls_at_once(settings.receiver_poll_rate)
        self._verify = httpx.create_ssl_context()
        self.client = RivyaClient(
            settings.rivya_base_url, self._key, polls=polls, relayed_calls=relayed, verify=self._verify
        )
        self.name = secrets.token_hex(8)
        self.access = Access(settings.receiver_api_tokens, self.clock)
        self.audit = Audit(self.database, clock=self.clock, trusted_proxies=settings.receiver_trusted_proxies)
        self.access.on_admin_refused, self.access.on_admin_act = self.audit.refused, self.audit.record_act
        self.tokens = Tokens(TokenRepository(self.database), self.access, clock=self.clock)
        self.loops = BackgroundLoops(self.clock)
        self._not_started: list[HealthCheck] = []
        self._attempts, self._may_share_file = 0, may_share_file
        self.changes = Changes()
        self.queries = Queries(self.database)
        self.waiting = Waiting(self.queries, self.changes, max_seconds=settings.receiver_max_wait.total_seconds())
        self.feed = Feed(self.database)
        self.feed_hints = feed_hints(self.database, self.changes, name=self.name)
        self.feed_tail = FeedTail(self.feed, self.changes, self.feed_hints)
        self._build_endpoint()
        self._build_polling()
        self._build_ledger()
        self._build_submission()
        self._build_notifications()
        self._build_operations()
        self.app = self._application()
        self.give_up: Callable[[str], None] = log.error
        """Called with the reason if the service can never become ready."""

    def _build_endpoint(self) -> None:
        settings, database, clock = self.settings, self.database, self.clock
        scheme, fixed = wanted_scheme(settings.rivya_signature_scheme), settings.rivya_signing_secret
        keys = self._keys = SecretBox([key.get_secret_value() for key in settings.receiver_encryption_keys])
        fixed_secret = None if fixed is None else fixed.get_secret_value()
        self.keyring = Keyring(database, clock=clock, keys=keys, scheme=scheme, fixed_secret=fixed_secret)
        proofs, clocks = ProofRepository(database), alternate_clocks(clock)
        self.verification = Verification(self.keyring, proofs, clock=clock, alternate_clocks=clocks)
        self.endpoint_health = EndpointHealth(database, self.keyring, clock=clock)
        self.probe_key = ProbeKey(self._key)
        self.reconciler = Reconciler(
            self.client,
            database,
            clock=clock,
            leases=Leases(database, holder=self.name),
            keys=keys,
            public_url=settings.receiver_public_url if settings.registers_endpoint else None,
            term=settings.receiver_leader_lease,
            check_every=settings.receiver_endpoint_check,
            secret_overlap=settings.receiver_secret_overlap,
            rotate_every=settings.rotate_every,
        )

    def _build_polling(self) -> None:
        settings = self.settings
        self.limiter = RateLimiter(self.database, self.clock, rate=settings.receiver_poll_rate, api_key=self._key)
        timeouts = call_timeouts(chat=settings.rivya_chat_timeout, stream=settings.rivya_stream_timeout)
        relay = Relay(self.client, timeouts=timeouts, on_rate_limit=self.limiter.record_error)
        models_cache = ModelsCache(relay, self.clock, ttl=settings.receiver_models_ttl)
        most = settings.receiver_rivya_concurrency
        limit = ConcurrencyLimit(most, is_shared=lambda: self.access.has_several_names)
        price, default = models_cache.price, settings.receiver_default_credits
        self.spending = Spending(self.database, self.clock, price=price, default_credits=default)
        self.gateway = Gateway(relay, limit, models_cache, Balance(self.clock), self.access, self.spending)
        self.categories = Categories(models_cache.categories, self.limiter, self.clock)
        self.schedule = Schedule(
            interval=settings.receiver_poll_interval,
            horizon=settings.receiver_poll_horizon,
            grace=settings.receiver_poll_grace,
            category_of=self.categories.of,
            callbacks_expected=self.endpoint_health.callbacks_expected,
        )

    def _build_ledger(self) -> None:
        settings, database, clock = self.settings, self.database, self.clock
        client, limiter, schedule = self.client, self.limiter, self.schedule
        self.activity = Activity(database)
        ledger = Recorder(
            database,
            first_poll=schedule.first_poll,
            changes=self.changes,
            activity=self.activity,
            on_postgres=SettlingRecord if settings.receiver_fast_path else PostgresRecord,
        )
        self._commands = GenerationCommands(database, ledger, client=client, limiter=limiter, clock=clock)
        self._replay = Replay(database, ledger, clock=clock, first_poll=schedule.first_poll)
        self.batch = WriteQueue(ledger, clock, writers=1 if database.is_sqlite else WRITERS)
        self.poller = Poller(database, client, self.batch, schedule=schedule, limiter=limiter, clock=clock)
        self.poller.on_failed = partial(self.activity.count, FAILED_POLLS)
        self.rejections = Rejections(self.database)
        self.rejections.on_rejected = partial(self.activity.count, REFUSALS)
        self.intake = Intake(
            self.verification,
            self.endpoint_health,
            self.rejections,
            self.batch.record,
            clock=clock,
            most_bytes=settings.receiver_max_body_bytes,
            probed=self.probe_key.answer,
            trusted_proxies=settings.receiver_trusted_proxies,
        )
        if settings.receiver_retention_days:
            self.intake.kept_for = timedelta(days=settings.receiver_retention_days)

    def _build_submission(self) -> None:
        store, waiters = SubmissionRepository(self.database, price=self.spending.price), Waiters()
        self.submission_repository = store
        sender = Sender(self.client, self.batch, store, self.clock, waiters=waiters)
        self.submissions = SubmissionService(store, sender, self.limiter, self.clock, waiters=waiters)
        self.retrier = Retrier(store, sender, self.limiter, self.clock)

    def _build_notifications(self) -> None:
        settings, database, clock, keys = self.settings, self.database, self.clock, self._keys
        repository, client = NotificationRepository(database), NotificationClient(clock, verify=self._verify)
        secret, most = settings.receiver_callback_secret, settings.receiver_notify_concurrency
        master = None if secret is None else secret.get_secret_value()
        requests = RequestBuilder(
            keys=keys,
            scheme=lambda: self.keyring.snapshot.scheme,
            callback_master=master,
            allow=settings.receiver_notify_allow,
            callback_allow=settings.receiver_callback_allow,
            clock=clock,
        )
        check = None if secret is None else partial(client.check, allow=settings.receiver_callback_allow)
        self.callbacks = Callbacks(database, clock, check=check)
        self.notifications = repository
        self.notification_sender = NotificationSender(
            Claims(database), repository, client, requests, access=self.access, clock=clock, most=most
        )
        self.dispatcher = Dispatcher(
            database,
            repository,
            self.feed,
            self.changes,
            access=self.access,
            leases=Leases(database, holder=self.name),
            clock=clock,
            on_pending=self.notification_sender.wake,
        )
        sender, allow = self.notification_sender, settings.receiver_notify_allow
        service = Webhooks(database, repository, sender, client, self.feed, keys=keys, clock=clock, allow=allow)
        self._webhooks = service
        self._webhook_routes = webhooks.router(service, repository, self.access, self.audit, callback_master=master)

    def _build_operations(self) -> None:
        settings, database, clock = self.settings, self.database, self.clock
        self.alarms = AlarmMonitor(
            AlarmQuery(database, by_hand=not settings.registers_endpoint),
            alarm_thresholds(settings),
            clock=clock,
            poll_errors=self.poller.errors_in_a_row,
            needs_leader=settings.registers_endpoint,
            events=AlarmEvents(database, self.notifications.publish_alarm),
        )
        leases, days = Leases(database, holder=self.name), settings.receiver_retention_days
        share = SHARE_OF_ONE_WRITER if database.is_sqlite else SHARE
        self.retention = Retention(Pruning(database), leases, clock=clock, days=days, share=share, most=MOST)
        self.usage_rollup = UsageRollup(database)
        self.heartbeat = Heartbeat(database, clock, name=self.name)
        self.clock_sync = (ClockSync(clock, database),) if isinstance(clock, SystemClock) else ()
        """Empty if the clock is not the system's."""

    def _application(self) -> FastPathApp:
        app = FastPathApp(
            title="rivya-receiver",
            version=version("rivya-receiver"),
            description=schemas.description(),
            openapi_tags=schemas.TAGS,
            lifespan=lambda _: self.running(),
            redirect_slashes=False,
            default_response_class=schemas.JsonResponse,
            docs_url=None,
            redoc_url=None,
        )
        errors.install(app)
        app.add_fast_route(self.intake.path, self.intake, handler=FastDelivery(self.intake, self.batch.enqueue))
        access, queries, clock, callbacks = self.access, self.queries, self.clock, self.callbacks
        read = FastGenerationRead(self.waiting, access)
        app.add_fast_route(GENERATIONS, handler=read)
        max_wait = self.settings.receiver_max_wait.total_seconds()
        created, error = schemas.GenerationOut, schemas.ErrorOut
        app.include_router(submission.router(self.submissions, access, callbacks, created=created, error=error))
        app.include_router(generations.router(queries, access, self.waiting, self.batch.record, callbacks, clock=clock))
        app.include_router(events.router(self.feed, self.feed_tail, access, max_wait=max_wait))
        app.include_router(gateway.router(self.gateway, access), responses=schemas.errors(400, 404, 413))
        app.include_router(self._webhook_routes, responses=schemas.errors(400, 404, 413))
        # First, as `/deliveries/replay` is also a path of `/deliveries/{id}`.
        app.include_router(operator_routes.router(self._commands, self._replay, self.audit, access))
        app.include_router(deliveries.router(queries, access))
        app.include_router(usage.router(queries, access, clock=clock))
        for router in self._endpoint_routers():
            app.include_router(router, responses=schemas.errors(404))
        managed = tokens.router(self.tokens, self.spending, access, self.audit, clock=clock)
        app.include_router(managed, responses=schemas.errors(400, 404, 409, 413))
        app.include_router(rejections.router(self.rejections, access), responses=schemas.errors())
        tasks = (self._start_checks, self.loops.health_checks, self.batch.health_checks)
        parts = (self.endpoint_health, self.reconciler, self.limiter, self.alarms)
        self.readiness = health.Readiness(self.database, [*tasks, *(part.health_checks for part in parts)])
        self.operations_app = self._operations_app() if self.settings.receiver_metrics_port is not None else app
        """Serves /livez, /readyz and /metrics: the application itself, unless they have a port of their own."""
        self.operations_app.include_router(health.router(self.readiness, access))
        self.operations_app.include_router(metrics.router(queries, access, clock=clock))
        schemas.complete(app)
        self._add_pages(app)
        return app

    def _endpoint_routers(self) -> tuple[APIRouter, APIRouter]:
        settings, clock = self.settings, self.clock
        queries = EndpointQueries(self.database, self.keyring, clock=clock)
        commands, repository = EndpointCommands(self.database, clock=clock), EndpointRepository(self.database)
        url = settings.receiver_public_url
        reachability = Reachability(self.client, repository, clock=clock, key=self.probe_key, public_url=url)
        orphans = Orphans(self.client, repository, clock=clock, public_url=url if settings.registers_endpoint else None)
        admin = endpoint.admin_router(self.access, commands, reachability, queries, self.keyring, orphans)
        self._endpoint_parts = (queries, commands, reachability, orphans)
        return endpoint.router(self.access, queries), admin

    def _add_pages(self, app: FastAPI) -> None:
        """Add /docs, and the console unless it is turned off."""
        settings, files = self.settings, StaticFiles()
        app.include_router(static_files.router(files))
        if not settings.receiver_console:
            return
        endpoint_queries, endpoint_commands, reachability, orphans = self._endpoint_parts
        console = Console(
            access=self.access,
            sessions=Sessions(self.database, self.access, clock=self.clock, lifetime=settings.receiver_console_session),
            audit=self.audit,
            files=files,
            public_url=settings.receiver_public_url,
            clock=self.clock,
            queries=self.queries,
            activity=self.activity,
            feed_tail=self.feed_tail,
            readiness=self.readiness,
            heartbeat=self.heartbeat,
            commands=self._commands,
            replay=self._replay,
            rejections=self.rejections,
            submissions=self.submissions,
            submission_repository=self.submission_repository,
            category_of=self.categories.known,
            gateway=self.gateway,
            endpoint_queries=endpoint_queries,
            endpoint_commands=endpoint_commands,
            reachability=reachability,
            orphans=orphans,
            keyring=self.keyring,
            secret_overlap=settings.receiver_secret_overlap,
            tokens=self.tokens,
            spending=self.spending,
            webhooks=self._webhooks,
            notifications=self.notifications,
        )
        self.failed_sign_ins = FailedSignIns(self.clock)
        app.include_router(console_routes.router(console, self.failed_sign_ins))

    def _operations_app(self) -> FastAPI:
        app = FastAPI(openapi_url=None, redirect_slashes=False, default_response_class=schemas.JsonResponse)
        errors.install(app)
        return app

    async def prepare(self) -> None:
        """Migrate, and read the tokens, the keyring and the endpoint's health.

        Raises `DatabaseUnavailable`, `NameClash`, and `DecryptionFailed` if a stored secret can't be decrypted.
        """
        if self.settings.receiver_migrate_on_start:
            await migrate_database(self.database)
        await self.tokens.load()
        await self.keyring.load()
        await self.endpoint_health.run_once()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the loops while requests are served. At the end stop each part before the parts that it writes to."""
        await self.batch.start()
        starting = self.loops.start("start", self._start, longest_pause=5.0)
        try:
            yield
        finally:
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            await self.loops.stop()
            for part in (self.reconciler, self.retention, self.dispatcher, self.heartbeat):
                with suppress(DatabaseUnavailable):
                    await part.stop()
            await self.poller.stop()
            await self.submissions.stop()
            await self.notification_sender.stop()
            await self.batch.stop()
            await self.close()

    def release_callers(self) -> None:
        """Begin to shut down: answer long polls now, and creates as soon as Rivya answers or soon after."""
        self.waiting.stop()
        self.feed_tail.stop()
        self.submissions.begin_shutdown()
        self.gateway.shutdown_deadline.start()

    async def _start(self) -> None:
        """Prepare and start the loops; repeated until it succeeds. Requests are served meanwhile."""
        self._attempts += 1
        try:
            if not self._may_share_file:
                self.database.lock()
            await self.prepare()
        except (DatabaseInUse, DecryptionFailed, NameClash) as error:
            self.give_up(f"{_SETTING_OF[type(error)]}{error}")
            return
        except Exception as error:
            reason = type(error).__name__
            if isinstance(error, DatabaseUnavailable):
                reason = self.database.explain(error)
                log.warning("start.database_unavailable", attempt=self._attempts, reason=reason)
            self._not_started = [health.not_started(error, reason)]
            raise
        self._not_started = []
        ours = (self.reconciler, self.keyring, self.endpoint_health, self.tokens, self.spending, self.audit)
        work = (self.poller, self.categories, self.retrier, self.waiting, self.feed_tail, self.rejections)
        notifying = (self.dispatcher, self.notification_sender, *filter(None, (self.feed_hints,)))
        upkeep = (self.alarms, self.retention, self.usage_rollup, self.activity, self.heartbeat, *self.clock_sync)
        for part in (*ours, *work, *notifying, *upkeep):
            self.loops.start(type(part).__name__, part.run_once)

    async def _start_checks(self) -> list[HealthCheck]:
        return self._not_started

    async def close(self) -> None:
        """Close every connection."""
        await self.gateway.models_cache.aclose()
        await self.client.aclose()
        if self.feed_hints is not None:
            self.feed_hints.close()
        await self.database.dispose()
