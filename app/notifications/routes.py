"""The routes of webhooks at Rivya's paths, and of notifications beside them."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from app.core.audit import Audit
from app.core.auth import Access, Caller, Role
from app.core.bodies import describe_body, read_model
from app.core.errors import NotFound, RequestInvalid
from app.core.pagination import IdPage
from app.core.records import json_body
from app.ledger.callbacks import CallbackNotConfigured
from app.notifications.events import callback_secret
from app.notifications.models import EventType, SubscriptionStatus
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
    WebhookListOut,
    WebhookOut,
    render_delivery,
    render_notification,
    render_webhook,
)
from app.notifications.service import Webhooks, owner_of

_LONGEST_ID: Final = 200

_Id = Annotated[str, Path(max_length=_LONGEST_ID)]


def router(
    webhooks: Webhooks,
    repository: NotificationRepository,
    access: Access,
    audit: Audit,
    *,
    callback_master: str | None,
) -> APIRouter:
    """All routes. `callback_master`: RECEIVER_CALLBACK_SECRET, None if there are no callbacks of single jobs."""
    routes = APIRouter(prefix="/api/v1", tags=["webhooks"])
    _add_endpoints(routes, webhooks, repository, access, audit)
    _add_changes(routes, webhooks, access, audit)
    _add_deliveries(routes, webhooks, repository, access)
    _add_notifications(routes, webhooks, repository, access)

    @routes.get("/callback-secret", summary="The secret of callbacks", response_model=CallbackSecretOut)
    async def get_callback_secret(caller: Annotated[Caller, Depends(access.require(Role.WRITE))]) -> Response:
        """Signs the calls of `Receiver-Callback-Url` for the calling token; the same for all its jobs."""
        if callback_master is None:
            raise CallbackNotConfigured
        return _json({"object": "callback_secret", "signing_secret": callback_secret(callback_master, caller.name)})

    return routes


def _add_endpoints(
    routes: APIRouter, webhooks: Webhooks, repository: NotificationRepository, access: Access, audit: Audit
) -> None:
    Writer = Annotated[Caller, Depends(access.require(Role.WRITE))]  # noqa: N806 - a type

    @routes.get("/webhooks", summary="List the webhooks", response_model=WebhookListOut)
    async def list_webhooks(caller: Writer) -> Response:
        """Those of the token; for an admin all. The receiver's own endpoint at Rivya is not among them."""
        stored = await repository.subscriptions(token=owner_of(caller))
        return _json({"object": "list", "data": [render_webhook(each) for each in stored]})

    @routes.post(
        "/webhooks",
        summary="Create a webhook",
        status_code=201,
        response_model=NewWebhookOut,
        openapi_extra=describe_body(CreateWebhook),
    )
    async def create_webhook(request: Request, caller: Writer) -> Response:
        """As at Rivya: it is called in Rivya's envelope and scheme. Its secret is in this answer only."""
        wanted = await read_model(request, CreateWebhook)
        members = {**wanted.model_dump(), "event_types": tuple(wanted.event_types)}
        created, secret = await webhooks.create(caller, audit.actor(request), **members)
        return _json(render_webhook(created, secret=secret), status=201)

    @routes.get("/webhooks/{endpoint_id}", summary="One webhook", response_model=WebhookOut)
    async def get_webhook(endpoint_id: _Id, caller: Writer) -> Response:
        """Its state and its health; never its secret."""
        return _json(render_webhook(await repository.get(_usable(endpoint_id), token=owner_of(caller))))

    @routes.get("/webhook-events", summary="The events of webhooks", response_model=WebhookEventListOut)
    async def list_webhook_events(caller: Writer) -> Response:
        """The types that `event_types` may name."""
        types = [each for each in EventType if each is not EventType.ALARM or caller.role is Role.ADMIN]
        return _json({"object": "list", "data": [{"type": each, "object": "webhook_event_type"} for each in types]})


def _add_changes(routes: APIRouter, webhooks: Webhooks, access: Access, audit: Audit) -> None:
    Writer = Annotated[Caller, Depends(access.require(Role.WRITE))]  # noqa: N806 - a type

    @routes.patch(
        "/webhooks/{endpoint_id}",
        summary="Change a webhook",
        response_model=WebhookOut,
        openapi_extra=describe_body(ChangeWebhook),
    )
    async def change_webhook(endpoint_id: _Id, request: Request, caller: Writer) -> Response:
        """`active` after `paused` or `disabled` sends what was held in the last two days."""
        wanted = await read_model(request, ChangeWebhook)
        changes: dict[str, Any] = wanted.model_dump(exclude_unset=True)
        if "event_types" in changes:
            changes["event_types"] = tuple(changes["event_types"])
        if "status" in changes:
            changes["status"] = SubscriptionStatus(changes["status"])
        changed = await webhooks.change(caller, audit.actor(request), _usable(endpoint_id), changes)
        return _json(render_webhook(changed))

    @routes.delete("/webhooks/{endpoint_id}", summary="Delete a webhook", response_model=DeletedOut)
    async def delete_webhook(endpoint_id: _Id, request: Request, caller: Writer) -> Response:
        """Nothing more is sent to it; what waits is canceled."""
        await webhooks.delete(caller, audit.actor(request), _usable(endpoint_id))
        return _json({"id": endpoint_id, "object": "webhook_endpoint", "deleted": True})

    @routes.post(
        "/webhooks/{endpoint_id}/rotate-secret", summary="Replace the secret of a webhook", response_model=NewWebhookOut
    )
    async def rotate_secret(endpoint_id: _Id, request: Request, caller: Writer) -> Response:
        """The new secret is in this answer only. For 72 hours both sign."""
        rotated, secret = await webhooks.rotate(caller, audit.actor(request), _usable(endpoint_id))
        return _json(render_webhook(rotated, secret=secret))


def _add_deliveries(routes: APIRouter, webhooks: Webhooks, repository: NotificationRepository, access: Access) -> None:
    Writer = Annotated[Caller, Depends(access.require(Role.WRITE))]  # noqa: N806 - a type

    @routes.post(
        "/webhooks/{endpoint_id}/test", summary="Send a test event to a webhook", response_model=WebhookDeliveryOut
    )
    async def test_webhook(endpoint_id: _Id, caller: Writer) -> Response:
        """One attempt, at once; answers what came of it, after 15 s at most."""
        return _json(render_delivery(await webhooks.test(caller, _usable(endpoint_id))))

    @routes.get(
        "/webhooks/{endpoint_id}/deliveries",
        summary="What was sent to a webhook",
        response_model=WebhookDeliveryListOut,
    )
    async def list_webhook_deliveries(
        endpoint_id: _Id,
        caller: Writer,
        limit: Annotated[int, Query(ge=1, le=200, description="How many at most.")] = 50,
        cursor: Annotated[str | None, Query(max_length=_LONGEST_ID, description="`next_cursor` before.")] = None,
    ) -> Response:
        """Newest first; /api/v1/notifications shows each attempt."""
        to = await repository.get(_usable(endpoint_id), token=owner_of(caller))
        chosen = NotificationFilter(endpoint_id=to.id)
        page = await repository.list_notifications(chosen, after=_cursor(cursor), limit=limit)
        return _json(_list([render_delivery(row) for row in page.rows], page))

    @routes.post(
        "/webhooks/{endpoint_id}/resend",
        summary="Send many notifications again",
        response_model=ResentOut,
        openapi_extra=describe_body(ResendMany, is_required=False),
    )
    async def resend_many(endpoint_id: _Id, request: Request, caller: Writer) -> Response:
        """Those of this status that were written in this time, the oldest 10,000 at most."""
        wanted = await read_model(request, ResendMany)
        count = await webhooks.resend_many(
            caller, _usable(endpoint_id), state=wanted.status, since=wanted.since, until=wanted.until
        )
        return _json({"object": "resend", "count": count})


def _add_notifications(
    routes: APIRouter, webhooks: Webhooks, repository: NotificationRepository, access: Access
) -> None:
    Writer = Annotated[Caller, Depends(access.require(Role.WRITE))]  # noqa: N806 - a type

    @routes.get("/notifications", summary="List what was sent", response_model=NotificationListOut)
    async def list_notifications(parameters: Annotated[NotificationParameters, Query()], caller: Writer) -> Response:
        """Notifications of the token's webhooks and jobs, for an admin of all, with their attempts; newest first."""
        chosen = NotificationFilter(
            token=owner_of(caller),
            endpoint_id=parameters.endpoint_id,
            state=parameters.status,
            generation_id=parameters.generation_id,
        )
        is_admin = caller.role is Role.ADMIN
        page = await repository.list_notifications(chosen, after=_cursor(parameters.cursor), limit=parameters.limit)
        return _json(_list([render_notification(row, is_admin=is_admin) for row in page.rows], page))

    @routes.post(
        "/notifications/{notification_id}/resend", summary="Send a notification again", response_model=NotificationOut
    )
    async def resend(notification_id: _Id, caller: Writer) -> Response:
        """Whatever became of it, it is due now, with all its attempts before it."""
        row = await webhooks.resend(caller, _usable(notification_id))
        return _json(render_notification(row, is_admin=caller.role is Role.ADMIN))


def _json(content: object, *, status: int = 200) -> Response:
    return Response(json_body(content), status_code=status, media_type="application/json")


def _list(items: list[dict[str, Any]], page: IdPage) -> dict[str, Any]:
    return {"object": "list", "data": items, "next_cursor": page.last}


def _usable(identity: str) -> str:
    if not identity.isprintable():
        raise NotFound("There is nothing with this id.")
    return identity


def _cursor(cursor: str | None) -> str | None:
    if cursor is not None and not cursor.isprintable():
        raise RequestInvalid("cursor: must be the next_cursor of an answer, unchanged.")
    return cursor
