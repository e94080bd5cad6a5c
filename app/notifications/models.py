"""The types of webhooks and notifications, and when an attempt is repeated. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from app.ledger.models import EventFilter


class SubscriptionStatus(StrEnum):
    """What becomes of the events for a program's endpoint."""

    ACTIVE = "active"
    """They are sent."""
    PAUSED = "paused"
    """They are held, at the program's wish."""
    DISABLED = "disabled"
    """They are held: the endpoint failed for too long, or answered 410, or was switched off."""
    REVOKED = "revoked"
    """The endpoint was deleted."""


class NotificationState(StrEnum):
    """What became of a notification."""

    PENDING = "pending"
    """It is to be sent."""
    HELD = "held"
    """It waits until its endpoint is active."""
    DELIVERED = "delivered"
    DEAD = "dead"
    """It was given up."""
    CANCELED = "canceled"
    """Its endpoint was deleted."""


class EventType(StrEnum):
    """The events that an endpoint can ask for."""

    SUCCEEDED = "generation.succeeded"
    FAILED = "generation.failed"
    QUEUED = "generation.queued"
    PROCESSING = "generation.processing"
    ALARM = "receiver.alarm"


RIVYAS_TYPES: Final = (EventType.SUCCEEDED, EventType.FAILED)
"""Those that Rivya has; an endpoint that names none gets these."""
TEST_TYPE: Final = "webhook.test"
API_VERSION: Final = "2026-05-11"
HOLD: Final = timedelta(days=2)
"""For this time events are held for an endpoint that is not active."""
FAILING_LIMIT: Final = timedelta(days=5)
"""An endpoint that fails for this time is disabled."""
MOST_AT_ONCE: Final = 5
"""Attempts under way for one endpoint, or for the callbacks of one token."""
MOST_WHILE_FAILING: Final = 1
"""Attempts under way for an endpoint whose last attempt failed: slow ones shall not use up what others could use."""
LONGEST_RETRY_AFTER: Final = timedelta(hours=1)
CALLBACKS: Final = "callbacks:"
"""The queue of a token's callbacks is this and the token's name."""
_MOST_LOGGED: Final = 30
_JITTER: Final = 0.1
_PAUSES: Final = tuple(
    timedelta(**pause)
    for pause in (
        {"seconds": 5},
        {"minutes": 5},
        {"minutes": 30},
        *({"hours": hours} for hours in (2, 5, 10, 14, 20, 24)),
    )
)
MOST_ATTEMPTS: Final = len(_PAUSES) + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """A program's endpoint: a row of `subscriptions`."""

    id: str
    token: str
    owner: str | None
    """The token, if it gets only its own generations."""
    name: str
    url: str
    event_types: tuple[EventType, ...]
    model: str | None
    submitted_by: str | None
    status: SubscriptionStatus
    secret: str = field(repr=False)
    """Encrypted."""
    secret_preview: str
    previous_secret: str | None = field(repr=False, default=None)
    rotated_at: datetime | None = None
    begins_after: int = 0
    """It gets what is behind this position of the feed."""
    failure_count: int = 0
    failing_since: datetime | None = None
    last_success_at: datetime | None = None
    last_failure_at: datetime | None = None
    created_at: datetime
    updated_at: datetime
    disabled_at: datetime | None = None
    revoked_at: datetime | None = None

    @property
    def state_of_new(self) -> NotificationState:
        """The state in which a notification for it begins."""
        is_active = self.status is SubscriptionStatus.ACTIVE
        return NotificationState.PENDING if is_active else NotificationState.HELD

    def chosen(self, *, is_fenced: bool | None) -> EventFilter:
        """Which generations it gets. `is_fenced`: whether its token is now; None: as it was."""
        owner = self.owner if is_fenced is None else self.token if is_fenced else None
        return EventFilter(model=self.model, submitted_by=self.submitted_by, owner=owner)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewNotification:
    """A notification to be written."""

    queue: str
    subscription_id: str | None = None
    callback_url: str | None = None
    token: str
    event_id: str
    event_type: str
    generation_id: str | None = None
    number: int = 0
    body: bytes = field(repr=False)
    state: NotificationState = NotificationState.PENDING

    @classmethod
    def of(
        cls,
        to: Subscription,
        *,
        event_id: str,
        event_type: str,
        body: bytes,
        **more: Any,  # noqa: ANN401
    ) -> "NewNotification":
        """One for a program's endpoint."""
        return cls(
            queue=to.id,
            subscription_id=to.id,
            token=to.token,
            event_id=event_id,
            event_type=event_type,
            body=body,
            state=to.state_of_new,
            **more,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """A notification that a sender has leased, with its endpoint; None for a callback of one job."""

    id: str
    queue: str
    lease_until: datetime
    """Identifies the lease: what comes of an earlier one is not written."""
    subscription: Subscription | None
    callback_url: str | None
    token: str
    event_id: str
    event_type: str
    generation_id: str | None
    number: int
    attempts: int
    attempt_log: Sequence[Mapping[str, Any]]
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of an attempt."""

    at: datetime
    """Its end."""
    status: int | None = None
    """None: no answer."""
    error: str | None = None
    milliseconds: int = 0
    excerpt: str = field(repr=False, default="")
    """The beginning of the answer."""
    retry_after: float | None = None
    """Seconds, as the answer asks for."""

    @property
    def is_success(self) -> bool:
        """Whether the event is delivered."""
        return self.status is not None and 200 <= self.status < 300

    @property
    def is_gone(self) -> bool:
        """The receiver wants nothing any more."""
        return self.status == 410

    @property
    def reason(self) -> str | None:
        """Why it failed, None for a success."""
        return None if self.is_success else self.error or f"status {self.status}"

    def entry(self) -> dict[str, Any]:
        """The attempt as it is stored."""
        return {
            "at": self.at.isoformat(),
            "status": self.status,
            "error": self.error,
            "milliseconds": self.milliseconds,
            "excerpt": self.excerpt,
        }


def logged(log: Sequence[Mapping[str, Any]], result: Result) -> list[Mapping[str, Any]]:
    """The log of attempts with this one."""
    return [*log, result.entry()][-_MOST_LOGGED:]


def next_attempt(attempts: int, result: Result, *, spread: float) -> datetime | None:
    """When to try again after this many failed attempts; None: give up. `spread`, from 0 to 1, is chosen by chance."""
    if attempts >= MOST_ATTEMPTS or result.is_gone:
        return None
    pause = _PAUSES[attempts - 1] * (1 + _JITTER * spread)
    if result.retry_after is not None:
        pause = max(pause, min(timedelta(seconds=max(result.retry_after, 0)), LONGEST_RETRY_AFTER))
    return result.at + pause


class Failing(StrEnum):
    """What an operator has to know of an endpoint that fails, or works again."""

    FIRST = "first"
    HALF = "half"
    DISABLED = "disabled"
    ENDED = "ended"


def failing_stage(subscription: Subscription, at: datetime) -> Failing | None:
    """What a failure at this time means for the endpoint; None: nothing that its earlier ones did not mean."""
    since, last = subscription.failing_since, subscription.last_failure_at
    if since is None:
        return Failing.FIRST
    if at - since >= FAILING_LIMIT:
        return Failing.DISABLED
    before = timedelta() if last is None else last - since
    return Failing.HALF if before < FAILING_LIMIT / 2 <= at - since else None
