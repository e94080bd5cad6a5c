"""/livez: the process runs. /readyz: every health check, 503 if a required one fails."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, Literal, TypeVar

import structlog
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from app.api.schemas import answer
from app.core import migrations
from app.core.auth import Access
from app.core.database import Database
from app.core.errors import DatabaseUnavailable, HealthCheck, ServiceError

Check = Callable[[], Awaitable[Sequence[HealthCheck]]]
Result = TypeVar("Result")

_SECONDS_PER_CHECK = 3.0
_SECONDS_FOR_DATABASE = 2.5
_SECONDS_PER_WAIT = 0.05
_SECONDS_FOR_NEW = 0.25
_OLDEST = 15

_NO_RIGHTS = "42501"
_MIGRATE = "run `rivya-receiver migrate`, or start with RECEIVER_MIGRATE_ON_START=true"
_TABLE_TAKEN = "another program's table has the name of one of ours: give the receiver a schema of its own"

log = structlog.stdlib.get_logger(__name__)


class FindingOut(BaseModel):
    """One thing looked at."""

    name: str
    ok: bool
    detail: str
    required: bool


class ReadinessOut(BaseModel):
    """Ready when everything that is required is ok."""

    status: Literal["ready", "not_ready"]
    checks: list[FindingOut]


class LivenessOut(BaseModel):
    """200 while the process runs."""

    status: Literal["alive"]


class Readiness:
    """Runs the checks of `/readyz` at the same time, three seconds at most; callers share a run."""

    def __init__(self, database: Database, checks: Sequence[Check], *, keep_seconds: float = 1.0) -> None:
        self._database = database
        self._checks = (self._check_database, *checks)
        self.keep_seconds = keep_seconds
        """A result that is older starts another run; if that takes long, callers get one up to 15 times as old.

        So a process that is flooded with requests, in which a run takes long, answers its balancer nevertheless: one
        that asks every 10 s, too.
        """
        self._revision, self._known_revisions = migrations.head(), migrations.known()
        self._run: asyncio.Task[Sequence[HealthCheck]] | None = None
        self._latest: Sequence[HealthCheck] | None = None
        self._latest_at = 0.0
        self._tasks: set[asyncio.Future[Any]] = set()
        """The checks that run; also those that go on after their time, because a driver is slow to clean up."""

    async def get(self) -> Sequence[HealthCheck]:
        """The latest results."""
        now = asyncio.get_running_loop().time()
        if self._run is None or (self._run.done() and now >= self._latest_at + self.keep_seconds):
            self._run = asyncio.create_task(self._check())
        if self._latest is not None and now < self._latest_at + _OLDEST * self.keep_seconds:
            await asyncio.wait({self._run}, timeout=_SECONDS_FOR_NEW)
            return self._latest
        return await asyncio.shield(self._run)

    async def _check(self) -> Sequence[HealthCheck]:
        results = await asyncio.gather(*(self._run_check(check) for check in self._checks))
        self._latest_at = asyncio.get_running_loop().time()
        self._latest = [health_check for result in results for health_check in result]
        return self._latest

    async def _run_check(self, check: Check) -> Sequence[HealthCheck]:
        try:
            return await self._within(_SECONDS_PER_CHECK, check())
        except Exception as error:  # noqa: BLE001 - a check that raises counts as failed
            # The class of a method, because the methods all have the same name.
            name = (
                getattr(check, "__qualname__", type(check).__name__).removesuffix(".health_checks").rpartition(".")[2]
            )
            log.warning("check.failed", check=name, error=type(error).__name__)
            return [HealthCheck(name, ok=False, detail=_reason(error), is_required=True)]

    async def _check_database(self) -> Sequence[HealthCheck]:
        """That the database answers, accepts writes, and has this code's schema."""
        try:
            revision, is_read_only = await self._within(_SECONDS_FOR_DATABASE, self._database_state())
        except migrations.TableTaken as error:
            return [
                _database("answers", ok=True),
                HealthCheck("migrations", ok=False, detail=str(error), is_required=True, remedy=_TABLE_TAKEN),
            ]
        except (DatabaseUnavailable, TimeoutError) as error:
            cause = error if isinstance(error, DatabaseUnavailable) else DatabaseUnavailable()
            return [_database(f"can't be reached ({self._database.explain(cause)}); look at DATABASE_URL", ok=False)]
        detail = "answers, but takes no writes: it is a standby, or set to be read-only" if is_read_only else "answers"
        return [_database(detail, ok=not is_read_only), _migrated(revision, self._revision, self._known_revisions)]

    async def _database_state(self) -> tuple[str | None, bool]:
        return await migrations.current(self._database), await self._database.is_read_only()

    async def _within(self, seconds: float, check: Awaitable[Result]) -> Result:
        """The result of `check`. Raises `TimeoutError` after `seconds`, without waiting for the driver to clean up.

        Time in which the event loop was busy with other requests hardly counts: the check could not go on then.
        """
        task = asyncio.ensure_future(check)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        try:
            for _ in range(round(seconds / _SECONDS_PER_WAIT)):
                await asyncio.wait({task}, timeout=_SECONDS_PER_WAIT)
                if task.done():
                    return task.result()
            raise TimeoutError
        finally:
            task.cancel()

    def _ended(self, task: asyncio.Future[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # retrieved: nobody else will, once the time is over


def router(readiness: Readiness, access: Access) -> APIRouter:
    """The health routes."""
    routes = APIRouter(tags=["operations"])

    @routes.get("/livez", summary="The process runs", response_model=LivenessOut)
    async def livez() -> Response:
        """200 as long as the process answers at all; checks nothing."""
        return answer({"status": "alive"})

    @routes.get(
        "/readyz",
        summary="The service can do its work",
        response_model=ReadinessOut,
        responses={503: {"model": ReadinessOut, "description": "Something that is required is not ok."}},
    )
    async def readyz(request: Request) -> Response:
        """The results of the checks, a few seconds old at most, and what to do where something is wrong.

        A token of the role admin is shown the details: schemes, ids, names and figures.
        """
        checks, shows_details = await readiness.get(), access.is_admin(request)
        is_ready = all(check.ok for check in checks if check.is_required)
        rows = [
            {
                "name": check.name,
                "ok": check.ok,
                "detail": check.detail if shows_details else "ok" if check.ok else check.remedy,
                "required": check.is_required,
            }
            for check in checks
        ]
        status = "ready" if is_ready else "not_ready"
        return answer({"status": status, "checks": rows}, status=200 if is_ready else 503)

    return routes


def not_started(error: Exception, reason: str) -> HealthCheck:
    """The health check of a start that failed with `error`; `reason` holds no value of a statement or setting."""
    if isinstance(error, migrations.TableTaken):
        return HealthCheck("start", ok=False, detail=str(error), is_required=True, remedy=_TABLE_TAKEN)
    is_known = isinstance(error, DatabaseUnavailable)
    what_to_do = "put that right, see DATABASE_URL" if is_known else "see `loop.failed` in the log"
    if reason.startswith(_NO_RIGHTS):
        what_to_do = migrations.NO_RIGHTS_HELP
    detail = f"failed ({reason}), and is tried again every few seconds: {what_to_do}"
    return HealthCheck("start", ok=False, detail=detail, is_required=True, remedy=what_to_do)


def _migrated(revision: str | None, wanted: str | None, known: Collection[str]) -> HealthCheck:
    if revision is not None and revision not in known:
        detail = (
            f"at {revision}, made by a later release; this one, written for {wanted}, runs on it while it is replaced"
        )
        return HealthCheck("migrations", ok=True, detail=detail, is_required=True)
    is_current = revision == wanted
    detail = (
        f"at {wanted}"
        if is_current
        else f"at {revision or 'nothing'}, and this code is written for {wanted}: {_MIGRATE}"
    )
    return HealthCheck("migrations", ok=is_current, detail=detail, is_required=True, remedy=_MIGRATE)


def _database(detail: str, *, ok: bool) -> HealthCheck:
    remedy = "look at DATABASE_URL, and whether the server is up and takes writes"
    return HealthCheck("database", ok=ok, detail=detail, is_required=True, remedy=remedy)


def _reason(error: Exception) -> str:
    if isinstance(error, ServiceError):
        return error.message
    return "took too long" if isinstance(error, TimeoutError) else "failed; it has been logged"
