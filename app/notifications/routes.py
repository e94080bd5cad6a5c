"""The routes of webhooks at Rivya's paths, and of notifications beside them."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Path, Query, Request

from app.core.audit import Audit
from app.core.auth import Access, Caller, Role
from app.core.bodies import describe_body, read_model
from app.core.errors import RequestInvalid
from app.ledger.callbacks import CallbackNotConfigured
from app.notifications.events import callback_secret
from app.notifications.models import SubscriptionStatus
from app.notifications.repository import NotificationFilter, NotificationRepository
from app.notifications.schemas import (
    CallbackSecretOut,
    ChangeWebhook,
    CreateWebhook,
    DeletedOut,
    NewWebhookOut,
    NotificationListOut,
    NotificationOut,
    NotificationParameters,
    ResendMany,
    ResentOut,
    WebhookDeliveryListOut,
    WebhookDeliveryOut,
    WebhookEventListOut,
    WebhookEventOut,
    WebhookListOut,
    WebhookOut,
)
from app.notifications.service import Webhooks, event_types_for, owner_of, usable_id

_LONGEST_ID: Final = 200

_Id = Annotated[str, Path(max_length=_LONGEST_ID)]


def router(
    webhooks: Webhooks, repository: NotificationRepository, access: Access, audit: Audit, *, callback_master: str | None
) -> APIRouter:
    """All routes. `callback_master`: RECEIVER_CALLBACK_SECRET, None if there are no callbacks of single jobs."""
    routes = APIRouter(prefix="/api/v1", tags=["webhooks"])
    _add_endpoints(routes, webhooks, repository, access, audit)
    _add_changes(routes, webhooks, access, audit)
    _add_deliveries(routes, webhooks, repository, access)
    _add_notifications(routes, webhooks, repository, access)

    @routes.get("/callback-secret", summary="The secret of callbacks")
    async def get_callback_secret(caller: Annotated[Caller, Depends(access.require(Role.WRITE))]) -> CallbackSecretOut:
        """Signs the calls of `Receiver-Callback-Url` for the calling token; the same for all its jobs."""
        if callback_master is None:
            raise CallbackNotConfigured
        return CallbackSecretOut(signing_secret=callback_secret(callback_master, caller.name))

    return routes


def _add_endpoints(
    routes: APIRouter, webhooks: Webhooks, repository: NotificationRepository, access: Access, audit: Audit
) -> None:
    Writer = Annotated[Caller, Depends(access.require(Role.WRITE))]  # noqa: N806 - a type

    @routes.get("/webhooks", summary="List the webhooks")
    async def list_webhooks(caller: Writer) -> WebhookListOut:
        """Those of the token; for an admin all. The receiver's own endpoint at Rivya is not among them."""
        stored = await repository.subscriptions(token=owner_of(caller))
        return WebhookListOut(data=[WebhookOut.model_validate(each) for each in stored])

    @routes.post("/webhooks", summary="Create a webhook", status_code=201, openapi_extra=describe_body(CreateWebhook))
    async def create_webhook(request: Request, caller: Writer) -> NewWebhookOut:
        """As at Rivya: it is called in Rivya's envelope and scheme. Its secret is in this answer only."""
        wanted = await read_model(request, CreateWebhook)
        members = {**wanted.model_dump(), "event_types": tuple(wanted.event_types)}
        created, secret = await webhooks.create(caller, audit.actor(request), **members)
        return NewWebhookOut.of(created, secret)

    @routes.get("/webhooks/{endpoint_id}", summary="One webhook")
    async def get_webhook(endpoint_id: _Id, caller: Writer) -> WebhookOut:
        """Its state and its health; never its secret."""
        return WebhookOut.model_validate(await repository.get(usable_id(endpoint_id), token=owner_of(caller)))

    @routes.get("/webhook-events", summary="The events of webhooks")
    async def list_webhook_events(caller: Writer) -> WebhookEventListOut:
        """The types that `event_types` may name."""
        return WebhookEventListOut(data=[WebhookEventOut(type=each) for each in event_types_for(caller)])


def _add_changes(routes: APIRouter, webhooks: Webhooks, access: Access, audit: Audit) -> None:
    Writer = Annotated[Caller, Depends(access.require(Role.WRITE))]  # noqa: N806 - a type

    @routes.patch("/webhooks/{endpoint_id}", summary="Change a webhook", openapi_extra=describe_body(ChangeWebhook))
    async def change_webhook(endpoint_id: _Id, request: Request, caller: Writer) -> WebhookOut:
        """`active` after `paused` or `disabled` sends what was held in the last two days."""
        wanted = await read_model(request, ChangeWebhook)
        changes: dict[str, Any] = wanted.model_dump(exclude_unset=True)
        if "event_types" in changes:
            changes["event_types"] = tuple(changes["event_types"])
        if "status" in changes:
            changes["status"] = SubscriptionStatus(changes["status"])
        changed = await webhooks.change(caller, audit.actor(request), usable_id(endpoint_id), changes)
        return WebhookOut.model_validate(changed)

    @routes.delete("/webhooks/{endpoint_id}", summary="Delete a webhook")
    async def delete_webhook(endpoint_id: _Id, request: Request, caller: Writer) -> DeletedOut:
        """Nothing more is sent to it; what waits is canceled."""
        await webhooks.delete(caller, audit.actor(request), usable_id(endpoint_id))
        return DeletedOut(id=endpoint_id)

    @routes.post("/webhooks/{endpoint_id}/rotate-secret", summary="Replace the secret of a webhook")
    async def rotate_secret(endpoint_id: _Id, request: Request, caller: Writer) -> NewWebhookOut:
        """The new secret is in this answer only. For 72 hours both sign."""
        rotated, secret = await webhooks.rotate(caller, audit.actor(request), usable_id(endpoint_id))
        return NewWebhookOut.of(rotated, secret)


def _add_deliveries(routes: APIRouter, webhooks: Webhooks, repository: NotificationRepository, access: Access) -> None:
    Writer = Annotated[Caller, Depends(access.require(Role.WRITE))]  # noqa: N806 - a type

    @routes.post("/webhooks/{endpoint_id}/test", summary="Send a test event to a webhook")
    async def test_webhook(endpoint_id: _Id, caller: Writer) -> WebhookDeliveryOut:
        """One attempt, at once; answers what came of it, after 15 s at most."""
        return WebhookDeliveryOut.of(await webhooks.test(caller, usable_id(endpoint_id)))

    @routes.get("/webhooks/{endpoint_id}/deliveries", summary="What was sent to a webhook")
    async def list_webhook_deliveries(
        endpoint_id: _Id,
        caller: Writer,
        limit: Annotated[int, Query(ge=1, le=200, description="How many at most.")] = 50,
        cursor: Annotated[str | None, Query(max_length=_LONGEST_ID, description="`next_cursor` before.")] = None,
    ) -> WebhookDeliveryListOut:
        """Newest first; /api/v1/notifications shows each attempt."""
        to = await repository.get(usable_id(endpoint_id), token=owner_of(caller))
        chosen = NotificationFilter(endpoint_id=to.id)
        page = await repository.list_notifications(chosen, after=_cursor(cursor), limit=limit)
        return WebhookDeliveryListOut(data=[WebhookDeliveryOut.of(row) for row in page.rows], next_cursor=page.last)

    @routes.post(
        "/webhooks/{endpoint_id}/resend",
        summary="Send many notifications again",
        openapi_extra=describe_body(ResendMany, is_required=False),
    )
    async def resend_many(endpoint_id: _Id, request: Request, caller: Writer) -> ResentOut:
        """Those of this status that were written in this time, the oldest 10,000 at most."""
        wanted = await read_model(request, ResendMany)
        count = await webhooks.resend_many(
            caller, usable_id(endpoint_id), state=wanted.status, since=wanted.since, until=wanted.until
        )
        return ResentOut(count=count)


def _add_notifications(
    routes: APIRouter, webhooks: Webhooks, repository: NotificationRepository, access: Access
) -> None:
    Writer = Annotated[Caller, Depends(access.require(Role.WRITE))]  # noqa: N806 - a type

    @routes.get("/notifications", summary="List what was sent")
    async def list_notifications(
        parameters: Annotated[NotificationParameters, Query()], caller: Writer
    ) -> NotificationListOut:
        """Notifications of the token's webhooks and jobs, for an admin of all, with their attempts; newest first."""
        chosen, after = parameters.chosen(token=owner_of(caller)), _cursor(parameters.cursor)
        page = await repository.list_notifications(chosen, after=after, limit=parameters.limit)
        data = [NotificationOut.of(row, is_admin=caller.role is Role.ADMIN) for row in page.rows]
        return NotificationListOut(data=data, next_cursor=page.last)

    @routes.post("/notifications/{notification_id}/resend", summary="Send a notification again")
    async def resend(notification_id: _Id, caller: Writer) -> NotificationOut:
        """Whatever became of it, it is due now, with all its attempts before it."""
        row = await webhooks.resend(caller, usable_id(notification_id))
        return NotificationOut.of(row, is_admin=caller.role is Role.ADMIN)


def _cursor(cursor: str | None) -> str | None:
    if cursor is not None and not cursor.isprintable():
        raise RequestInvalid("cursor: must be the next_cursor of an answer, unchanged.")
    return cursor
