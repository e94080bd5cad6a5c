"""Sends due notifications and repeats what fails; any number of processes may run it."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import structlog
from prometheus_client import Counter, Histogram

from app.core.auth import Access
from app.core.clock import Clock
from app.core.encryption import DecryptionFailed, SecretBox
from app.core.errors import DatabaseUnavailable
from app.core.urls import AllowList
from app.core.waiters import until_set
from app.notifications.claims import LEASE, Claims, Ended
from app.notifications.client import NotificationClient
from app.notifications.events import callback_secret, own_event_id, sign, valid_secrets
from app.notifications.models import FAILING_LIMIT, Claimed, Failing, NotificationState, Result
from app.notifications.repository import NotificationRepository
from app.rivya.schemes import Scheme

NOTIFICATIONS = Counter("receiver_notifications", "Attempts to send notifications, by what came of them.", ["result"])
SECONDS = Histogram("receiver_notification_seconds", "Time of an attempt to send a notification.")

log = structlog.stdlib.get_logger(__name__)

_LONGEST_IDLE: Final = 1.0
_ASLEEP: Final = 60.0
"""Seconds between looks while nothing is pending: the dispatcher wakes the sender."""
_BETWEEN_TURNS: Final = 0.01
"""What ends within this time is written together."""
_GRACE: Final = 5.0


@dataclass(frozen=True, slots=True)
class Outgoing:
    """Where one attempt goes, with which headers, and what the operator allows beside public addresses."""

    url: str
    headers: dict[str, str]
    allow: AllowList


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestBuilder:
    """Signs notifications with the secret of their endpoint, or of the token whose callback it is."""

    keys: SecretBox
    scheme: Callable[[], Scheme | None]
    """Returns the scheme that is proven for Rivya's deliveries, None while none is."""
    callback_master: str | None = field(repr=False)
    allow: AllowList
    callback_allow: AllowList
    clock: Clock

    def build(self, claimed: Claimed) -> Outgoing:
        """The request, signed now. Raises `DecryptionFailed` if there is no secret that can be used."""
        now, to = self.clock.now(), claimed.subscription
        if to is not None:
            previous = None if to.previous_secret is None else self.keys.decrypt(to.previous_secret)
            secrets = valid_secrets(self.keys.decrypt(to.secret), previous, to.rotated_at, now)
            url, allow = to.url, self.allow
        else:
            if self.callback_master is None:
                raise DecryptionFailed("RECEIVER_CALLBACK_SECRET is not set, so no callback can be signed")
            secrets = (callback_secret(self.callback_master, claimed.token),)
            url, allow = claimed.callback_url or "", self.callback_allow
        headers = sign(claimed.body, secrets, event_id=claimed.event_id, now=now, scheme=self.scheme())
        return Outgoing(url, headers, allow)


class NotificationSender:
    """`run_once` is one run of a supervised loop; it starts attempts as tasks, which continue until `stop`.

    No transaction is open while an attempt waits for its answer.
    """

    def __init__(
        self,
        claims: Claims,
        repository: NotificationRepository,
        client: NotificationClient,
        requests: RequestBuilder,
        *,
        access: Access,
        clock: Clock,
        most: int,
    ) -> None:
        self._claims = claims
        self._repository = repository
        self._client = client
        self._requests = requests
        self._access = access
        self._clock = clock
        self._most = most
        """Attempts under way in this process."""
        self._tasks: dict[asyncio.Task[Result], Claimed] = {}
        self._results: list[tuple[Claimed, Result]] = []
        self._woken = asyncio.Event()
        self._looks_at = 0.0
        """On the loop's clock."""

    def wake(self) -> None:
        """Look at once for what is due."""
        self._woken.set()

    async def run_once(self) -> float:
        """Write what came of attempts, start those that are due; returns the seconds until the next run.

        Raises `DatabaseUnavailable`.
        """
        loop = asyncio.get_running_loop()
        await until_set(self._woken, min(self._looks_at - loop.time(), _LONGEST_IDLE))
        if not self._woken.is_set() and loop.time() < self._looks_at:
            return 0.0
        self._woken.clear()
        self._looks_at = loop.time() + _LONGEST_IDLE
        if not self._results:
            due_at, now = await self._claims.next_due(), self._clock.now()
            if due_at is None or due_at > now:
                pause = _ASLEEP if due_at is None else min((due_at - now).total_seconds(), _LONGEST_IDLE)
                self._looks_at = loop.time() + pause
                return 0.0
        await self._turn(self._most - len(self._tasks))
        return _BETWEEN_TURNS

    async def send_now(self, notification_id: str) -> None:
        """Make one attempt to send this one at once, and write what came of it. Raises `DatabaseUnavailable`."""
        claimed = await self._claims.claim_one(notification_id, now=self._clock.now())
        if claimed is not None:
            await self._report(await self._claims.record([(claimed, await self._attempt(claimed))]))

    @property
    def under_way(self) -> int:
        """How many attempts are under way, or have ended and are not written yet."""
        return len(self._tasks) + len(self._results)

    async def idle(self) -> None:
        """Wait until every started attempt has ended, and write what came of them. Raises `DatabaseUnavailable`."""
        while self._tasks:
            await asyncio.wait(self._tasks)
        await self._turn(0)

    async def stop(self) -> None:
        """Finish attempts within the grace period, give the others back."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_GRACE)
        unfinished = [claimed for task, claimed in self._tasks.items() if not task.done()]
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            if self._results:
                await self._turn(0)
            if unfinished:
                await self._claims.give_back(unfinished, now=self._clock.now())
        except DatabaseUnavailable:
            log.warning("notification.leases_kept", count=len(unfinished) + len(self._results))  # they expire
        await self._client.aclose()

    def _start(self, claimed: Claimed) -> None:
        task = asyncio.create_task(self._attempt(claimed), name=f"notification-{claimed.id}")
        self._tasks[task] = claimed
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[Result]) -> None:
        claimed = self._tasks.pop(task)
        if not task.cancelled():
            self._results.append((claimed, task.result()))
            self._woken.set()

    async def _attempt(self, claimed: Claimed) -> Result:
        try:
            request = self._requests.build(claimed)
            result = await self._client.send(request.url, claimed.body, request.headers, allow=request.allow)
        except DecryptionFailed as error:
            log.error("notification.not_signed", notification_id=claimed.id, detail=str(error))  # noqa: TRY400
            return Result(at=self._clock.now(), error="not_signed")
        except Exception:
            # One notification that causes a bug must not stop the others, nor be sent without a pause.
            log.exception("notification.broken", notification_id=claimed.id)
            return Result(at=self._clock.now(), error="broken")
        SECONDS.observe(result.milliseconds / 1000)
        return result

    async def _turn(self, room: int) -> None:
        """Write what came of attempts, and start others; on `DatabaseUnavailable` the results are kept."""
        waiting, self._results = self._results, []
        now, roles = self._clock.now(), self._access.roles()
        failing = sum(to.failure_count > 0 for it in self._tasks.values() if (to := it.subscription) is not None)
        try:
            all_ended, claimed = await self._claims.turn(
                waiting,
                room,
                most_failing=max(self._most // 2, 1) - failing,
                now=now,
                may_send=lambda token: token in roles,
            )
        except DatabaseUnavailable:
            self._results = [each for each in waiting if each[1].at > now - LEASE] + self._results
            raise
        for each in claimed:
            self._start(each)
        await self._report(all_ended)

    async def _report(self, all_ended: list[Ended]) -> None:
        for ended in all_ended:
            word = {NotificationState.DELIVERED: "delivered", NotificationState.DEAD: "dead"}.get(ended.state, "failed")
            NOTIFICATIONS.labels(word).inc()
            if ended.state is NotificationState.DEAD:
                ids = {"notification_id": ended.claimed.id, "endpoint_id": ended.claimed.queue}
                log.warning("notification.dead", **ids, error=ended.result.reason)
            if ended.failing is not None:
                await self._alarm(ended, ended.failing)

    async def _alarm(self, ended: Ended, stage: Failing) -> None:
        """Log that an endpoint fails or works again, and notify those that ask for alarms."""
        endpoint_id, at = ended.claimed.queue, ended.result.at
        if stage is Failing.DISABLED:
            log.warning("webhook.disabled", endpoint_id=endpoint_id, error=ended.result.reason)
        elif stage is Failing.ENDED:
            log.info("webhook.working", endpoint_id=endpoint_id)
        else:
            log.warning("webhook.failing", endpoint_id=endpoint_id, stage=stage.value, error=ended.result.reason)
        since = None if ended.claimed.subscription is None else ended.claimed.subscription.failing_since
        await self._repository.publish_alarm(
            event_id=own_event_id("webhook_failing", endpoint_id, stage, at),
            alarm="webhook_failing",
            endpoint_id=endpoint_id,
            is_raised=stage is not Failing.ENDED,
            value=0.0 if since is None else (at - since).total_seconds(),
            threshold=FAILING_LIMIT.total_seconds(),
            now=at,
        )
