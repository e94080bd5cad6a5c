"""What programs do with their endpoints: create, change, rotate, test, delete, and send again."""

import secrets
from datetime import datetime
from typing import Any

from sqlalchemy import RowMapping

from app.core.audit import Actor
from app.core.auth import Caller, Forbidden, Role
from app.core.clock import Clock
from app.core.database import Database
from app.core.encryption import SecretBox
from app.core.errors import NotFound, Overloaded, ServiceError
from app.core.urls import AllowList
from app.ledger.feed import LATEST, Feed
from app.notifications.client import NotificationClient
from app.notifications.events import new_secret, other_body, preview
from app.notifications.models import (
    MOST_AT_ONCE,
    TEST_TYPE,
    EventType,
    NewNotification,
    NotificationState,
    Subscription,
    SubscriptionStatus,
)
from app.notifications.repository import NotificationRepository, lock_dispatch
from app.notifications.sender import NotificationSender


class NotEncrypted(ServiceError):
    """400: without RECEIVER_ENCRYPTION_KEYS no secret is stored."""

    status = 400
    code = "encryption_not_configured"


def owner_of(caller: Caller) -> str | None:
    """The token whose endpoints a caller reaches: its own; None for an admin, who reaches all."""
    return None if caller.role is Role.ADMIN else caller.name


def event_types_for(caller: Caller) -> list[EventType]:
    """The types of events that a caller may ask for."""
    return [each for each in EventType if each is not EventType.ALARM or caller.role is Role.ADMIN]


def usable_id(identity: str) -> str:
    """`identity`, if an endpoint or a notification can have it. Raises `NotFound`."""
    if not identity.isprintable():
        raise NotFound("There is nothing with this id.")
    return identity


class Webhooks:
    """Every method raises `DatabaseUnavailable`, and `NotFound` for an endpoint that the caller does not reach."""

    def __init__(
        self,
        database: Database,
        repository: NotificationRepository,
        sender: NotificationSender,
        client: NotificationClient,
        feed: Feed,
        *,
        keys: SecretBox,
        clock: Clock,
        allow: AllowList,
    ) -> None:
        self._database = database
        self._repository = repository
        self._sender = sender
        self._client = client
        self._feed = feed
        self._keys = keys
        self._clock = clock
        self._allow = allow
        self._tests = 0
        """Test events under way."""

    async def create(
        self,
        caller: Caller,
        actor: Actor,
        *,
        name: str,
        url: str,
        event_types: tuple[EventType, ...],
        **filters: Any,  # noqa: ANN401
    ) -> tuple[Subscription, str]:
        """A new endpoint and its secret, which is shown this once. It gets what happens from now on.

        Raises `UrlRejected`, `Forbidden`, `RequestInvalid`, `NotEncrypted`.
        """
        _check_types(caller, event_types)
        await self._client.check(url, self._allow)
        latest, now, secret = await self._feed.cursor(LATEST), self._clock.now(), new_secret()
        subscription = Subscription(
            id=f"whend_{secrets.token_hex(12)}",
            token=caller.name,
            owner=caller.owner,
            name=name,
            url=url,
            event_types=event_types,
            status=SubscriptionStatus.ACTIVE,
            secret=self._seal(secret),
            secret_preview=preview(secret),
            begins_after=latest.position,
            created_at=now,
            updated_at=now,
            **filters,
        )
        await self._repository.create(subscription, actor, cursor=self._feed.encode(latest))
        return subscription, secret

    async def change(self, caller: Caller, actor: Actor, subscription_id: str, changes: dict[str, Any]) -> Subscription:
        """The changed endpoint. Raises `UrlRejected`, `Forbidden`."""
        token = owner_of(caller)
        if "event_types" in changes:
            _check_types(caller, changes["event_types"])
        if "url" in changes:
            await self._repository.get(subscription_id, token=token)
            await self._client.check(changes["url"], self._allow)
        changed = await self._repository.change(subscription_id, changes, actor, token=token, now=self._clock.now())
        self._sender.wake()
        return changed

    async def rotate(self, caller: Caller, actor: Actor, subscription_id: str) -> tuple[Subscription, str]:
        """The endpoint with a new secret, which is shown this once. Raises `NotEncrypted`."""
        secret = new_secret()
        rotated = await self._repository.rotate(
            subscription_id,
            sealed=self._seal(secret),
            preview=preview(secret),
            actor=actor,
            token=owner_of(caller),
            now=self._clock.now(),
        )
        return rotated, secret

    async def delete(self, caller: Caller, actor: Actor, subscription_id: str) -> None:
        """Delete an endpoint."""
        await self._repository.delete(subscription_id, actor, token=owner_of(caller), now=self._clock.now())

    async def test(self, caller: Caller, subscription_id: str) -> RowMapping:
        """Send a test event now, once, whatever the status of the endpoint; returns the row of its notification.

        Raises `Overloaded` where several are under way in this process.
        """
        if self._tests >= MOST_AT_ONCE:
            raise Overloaded("Too many test events are being sent at once.")
        self._tests += 1
        try:
            return await self._test(caller, subscription_id)
        finally:
            self._tests -= 1

    async def _test(self, caller: Caller, subscription_id: str) -> RowMapping:
        to = await self._repository.get(subscription_id, token=owner_of(caller))
        now, event_id = self._clock.now(), f"evt_{secrets.token_hex(12)}"
        body = other_body(event_id, TEST_TYPE, now, {"message": "This is a test delivery."})
        new = NewNotification(
            queue=to.id, subscription_id=to.id, token=to.token, event_id=event_id, event_type=TEST_TYPE, body=body
        )
        async with self._database.transaction() as connection:
            await lock_dispatch(connection)
            [notification_id] = await self._repository.insert(connection, [new], now=now)
        await self._sender.send_now(notification_id)
        return await self._repository.get_notification(notification_id, token=None)

    async def resend(self, caller: Caller, notification_id: str) -> RowMapping:
        """Send one again; returns its row. Raises `NotFound`."""
        row = await self._repository.resend(notification_id, token=owner_of(caller), now=self._clock.now())
        self._sender.wake()
        return row

    async def resend_many(
        self,
        caller: Caller,
        subscription_id: str,
        *,
        state: NotificationState,
        since: datetime | None,
        until: datetime | None,
    ) -> int:
        """Send several again, the oldest first; returns how many."""
        count = await self._repository.resend_many(
            subscription_id, state=state, since=since, until=until, token=owner_of(caller), now=self._clock.now()
        )
        self._sender.wake()
        return count

    def _seal(self, secret: str) -> str:
        if self._keys.newest is None:
            raise NotEncrypted(
                "The operator has to set RECEIVER_ENCRYPTION_KEYS: secrets of webhooks are stored encrypted."
            )
        return self._keys.encrypt(secret)


def _check_types(caller: Caller, event_types: tuple[EventType, ...]) -> None:
    if EventType.ALARM in event_types and caller.role is not Role.ADMIN:
        raise Forbidden(f"event_types: {EventType.ALARM} is for the role admin.")
