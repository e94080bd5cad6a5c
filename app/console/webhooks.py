"""Webhooks of programs, and what was sent to them: made, paused, tested, rotated, deleted, and sent again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fastapi import APIRouter, Depends, Request, Response

from app.console.filters import segment
from app.console.pages import Console, parse_query, validated
from app.core.auth import Caller, Role
from app.core.errors import RequestInvalid
from app.notifications.models import NotificationState, Subscription, SubscriptionStatus
from app.notifications.repository import NotificationFilter
from app.notifications.schemas import CreateWebhook, NotificationOut, NotificationParameters, ResendMany
from app.notifications.service import event_types_for, owner_of, usable_id

_LIST: Final = "/console/webhooks"
_NOTIFICATIONS: Final = "/console/notifications"
_TYPE: Final = "type:"
"""Before the name of an event type: the name of its checkbox."""


def read_webhook(fields: Mapping[str, str]) -> CreateWebhook:
    """The webhook that a form asks for. Raises `RequestValidationError`."""
    given: dict[str, Any] = {name: fields.get(name, "").strip() for name in ("name", "url")}
    given |= {name: fields[name].strip() for name in ("model", "submitted_by") if fields.get(name, "").strip()}
    given["event_types"] = [name.removeprefix(_TYPE) for name in fields if name.startswith(_TYPE)]
    return validated(CreateWebhook, given)


@dataclass(frozen=True, slots=True)
class WebhookPages:
    """The handlers of the pages."""

    console: Console

    def router(self) -> APIRouter:
        """The routes."""
        routes, require = self.console.router(), self.console.require
        writes = [Depends(require(Role.WRITE))]
        one = "/webhooks/{webhook_id}"
        routes.get("/webhooks", dependencies=writes)(self.list_webhooks)
        routes.post("/webhooks", dependencies=writes)(self.create)
        routes.get(one, dependencies=writes)(self.show_webhook)
        routes.get(f"{one}/secret", dependencies=writes)(self.show_secret)
        for act in (self.change, self.pause, self.resume, self.rotate, self.test, self.resend_many, self.delete):
            routes.post(f"{one}/{act.__name__.replace('_', '-')}", dependencies=writes)(act)
        routes.get("/notifications", dependencies=writes)(self.list_notifications)
        routes.post("/notifications/{notification_id}/resend", dependencies=writes)(self.resend)
        return routes

    async def list_webhooks(self, request: Request) -> Response:
        """Those of the caller; for an admin all."""
        caller: Caller = request.state.caller
        return self.console.page(
            request,
            "webhooks.html",
            title="Webhooks",
            webhooks=await self.console.notifications.subscriptions(token=owner_of(caller)),
            event_types=event_types_for(caller),
        )

    async def create(self, request: Request) -> Response:
        """Make one, and show its secret."""
        wanted = read_webhook(request.state.form)
        members = {**wanted.model_dump(), "event_types": tuple(wanted.event_types)}
        caller: Caller = request.state.caller
        webhook, secret = await self.console.webhooks.create(caller, self.console.audit.actor(request), **members)
        return self.console.redirect_to_secret(request, _secret_url(webhook), secret)

    async def show_secret(self, request: Request, webhook_id: str) -> Response:
        """The secret of one that was just made or rotated."""
        webhook = await self.console.notifications.get(usable_id(webhook_id), token=owner_of(request.state.caller))
        back = f"{_LIST}/{segment(webhook.id)}"
        name = webhook.name or webhook.url
        return self.console.secret_page(request, title="Secret of the webhook", name=name, back=back)

    async def show_webhook(self, request: Request, webhook_id: str) -> Response:
        """One, and what was sent to it."""
        caller: Caller = request.state.caller
        webhook = await self.console.notifications.get(usable_id(webhook_id), token=owner_of(caller))
        rows, next_cursor = await self._notifications(request, NotificationFilter(endpoint_id=webhook.id))
        return self.console.page(
            request,
            "webhook.html",
            title="Webhook",
            webhook=webhook,
            rows=rows,
            next_cursor=next_cursor,
            event_types=event_types_for(caller),
            states=[str(state) for state in NotificationState],
        )

    async def _notifications(
        self, request: Request, chosen: NotificationFilter
    ) -> tuple[Sequence[NotificationOut], str | None]:
        cursor = request.query_params.get("cursor")
        if cursor is not None and not cursor.isprintable():
            raise RequestInvalid("cursor: must be the one of a link to the next page, unchanged.")
        page = await self.console.notifications.list_notifications(chosen, after=cursor, limit=50)
        is_admin = request.state.caller.role is Role.ADMIN
        return [NotificationOut.of(row, is_admin=is_admin) for row in page.rows], page.last

    async def change(self, request: Request, webhook_id: str) -> Response:
        """Change its name, its URL, its filters and its events."""
        wanted = read_webhook(request.state.form)
        changes = {**wanted.model_dump(), "event_types": tuple(wanted.event_types)}
        return await self._changed(request, webhook_id, changes, notice="Changed.")

    async def pause(self, request: Request, webhook_id: str) -> Response:
        """Hold what happens for two days at most."""
        notice = "Paused: what happens is held for two days at most."
        return await self._changed(request, webhook_id, {"status": SubscriptionStatus.PAUSED}, notice=notice)

    async def resume(self, request: Request, webhook_id: str) -> Response:
        """Send what was held, and go on."""
        notice = "Active: what was held is sent now."
        return await self._changed(request, webhook_id, {"status": SubscriptionStatus.ACTIVE}, notice=notice)

    async def _changed(self, request: Request, webhook_id: str, changes: dict[str, Any], *, notice: str) -> Response:
        actor = self.console.audit.actor(request)
        await self.console.webhooks.change(request.state.caller, actor, usable_id(webhook_id), changes)
        return self._to(request, webhook_id, notice)

    def _to(self, request: Request, webhook_id: str, notice: str) -> Response:
        return self.console.redirect(request, f"{_LIST}/{segment(webhook_id)}", notice=notice)

    async def rotate(self, request: Request, webhook_id: str) -> Response:
        """Give it a new secret, and show it."""
        actor = self.console.audit.actor(request)
        webhook, secret = await self.console.webhooks.rotate(request.state.caller, actor, usable_id(webhook_id))
        return self.console.redirect_to_secret(request, _secret_url(webhook), secret)

    async def test(self, request: Request, webhook_id: str) -> Response:
        """Send a test event at once; says what came of it."""
        await self.console.audit.record_act(request)
        row = await self.console.webhooks.test(request.state.caller, usable_id(webhook_id))
        answer = f"status {row['response_status']}" if row["response_status"] else row["error"] or "no answer"
        outcome = (
            "The test event was delivered" if row["state"] == NotificationState.DELIVERED else "It was not delivered"
        )
        return self._to(request, webhook_id, f"{outcome}: {answer}.")

    async def resend_many(self, request: Request, webhook_id: str) -> Response:
        """Send again what is in this state and was written in this time."""
        fields = request.state.form
        times = {name: f"{fields[name]}Z" for name in ("since", "until") if fields.get(name)}
        wanted = validated(ResendMany, {"status": fields.get("status", ""), **times})
        await self.console.audit.record_act(request)
        count = await self.console.webhooks.resend_many(
            request.state.caller, usable_id(webhook_id), state=wanted.status, since=wanted.since, until=wanted.until
        )
        notice = f"{count} {'is' if count == 1 else 'are'} sent again." if count else "There was none to send again."
        return self._to(request, webhook_id, notice)

    async def delete(self, request: Request, webhook_id: str) -> Response:
        """Delete it, confirmed by its id."""
        if request.state.form.get("confirm") != webhook_id:
            raise RequestInvalid("confirm: must be the id of the webhook, typed as it is shown.")
        await self.console.webhooks.delete(
            request.state.caller, self.console.audit.actor(request), usable_id(webhook_id)
        )
        return self.console.redirect(request, _LIST, notice=f"Deleted: {webhook_id}")

    async def list_notifications(self, request: Request) -> Response:
        """What was sent to the caller's webhooks and jobs, for an admin to all; newest first."""
        asked = parse_query(request, NotificationParameters)
        chosen = asked.chosen(token=owner_of(request.state.caller))
        rows, next_cursor = await self._notifications(request, chosen)
        return self.console.page(
            request,
            "notifications.html",
            title="Notifications",
            rows=rows,
            next_cursor=next_cursor,
            states=[str(state) for state in NotificationState],
        )

    async def resend(self, request: Request, notification_id: str) -> Response:
        """Make one due now."""
        await self.console.audit.record_act(request)
        row = await self.console.webhooks.resend(request.state.caller, usable_id(notification_id))
        to = row["subscription_id"]
        url = f"{_LIST}/{segment(to)}" if to is not None else _NOTIFICATIONS
        return self.console.redirect(request, url, notice="It is sent again.")


def _secret_url(webhook: Subscription) -> str:
    return f"{_LIST}/{segment(webhook.id)}/secret"
