"""Webhook endpoints: created, changed, rotated and removed by their accounts."""

import ipaddress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

from pydantic import BaseModel, Field

from app.sandbox.accounts import Records
from app.sandbox.clock import new_id, new_secret, stamp
from app.sandbox.responses import RivyaError, missing, validate
from app.sandbox.settings import Context

EventType = Literal["generation.succeeded", "generation.failed"]
EVENT_TYPES: tuple[EventType, ...] = get_args(EventType)


class EndpointChange(BaseModel):
    """The body of a PATCH; what it does not name stays."""

    name: str = ""
    url: str = ""
    event_types: Annotated[list[EventType], Field(min_length=1)] = [*EVENT_TYPES]
    status: Literal["active", "disabled"] = "active"


class EndpointRequest(EndpointChange):
    """The body of `POST /api/v1/webhooks`; a new endpoint is always active."""

    url: str


@dataclass
class Endpoint:
    """A registration; `rotated_at` is the time of the last rotation in seconds of `Scheduler.time`."""

    id: str
    account: str
    name: str
    url: str
    event_types: list[EventType]
    secret: str
    created_at: datetime
    updated_at: datetime
    status: str = "active"
    previous_secret: str | None = None
    rotated_at: float = 0.0
    last_success_at: datetime | None = None
    last_failure_at: datetime | None = None
    failure_count: int = 0
    disabled_at: datetime | None = None
    revoked_at: datetime | None = None
    past_secrets: list[str] = field(default_factory=list)

    def wants(self, event_type: str) -> bool:
        """Whether such an event is delivered here; undocumented types go to every endpoint."""
        return self.status == "active" and (event_type not in EVENT_TYPES or event_type in self.event_types)

    def rotate(self, secret: str, *, at: datetime, time: float) -> None:
        """Set a new secret and remember the old one for the overlap."""
        self.past_secrets = [*self.past_secrets, self.secret][-100:]
        self.previous_secret, self.secret = self.secret, secret
        self.rotated_at = time
        self.updated_at = at

    def signing_secrets(self, time: float, *, lag: float, overlap: float) -> list[str]:
        """The secrets that sign at this time, the newest first."""
        if self.previous_secret is None:
            return [self.secret]
        age = time - self.rotated_at
        if age < lag:
            return [self.previous_secret]
        return [self.secret, self.previous_secret] if age < overlap else [self.secret]

    def set_status(self, status: str, at: datetime) -> None:
        """Enable or disable; enabling resets the count of failures."""
        self.status = status
        self.updated_at = at
        self.disabled_at = at if status == "disabled" else None
        if status == "active":
            self.failure_count = 0

    def record_attempt(self, at: datetime, *, succeeded: bool, disable_after: int | None) -> None:
        """Record the outcome of an attempt; `disable_after` failures in a row disable the endpoint."""
        if succeeded:
            self.last_success_at, self.failure_count = at, 0
            return
        self.last_failure_at = at
        self.failure_count += 1
        if disable_after is not None and self.failure_count >= disable_after and self.status == "active":
            self.set_status("disabled", at)

    def as_json(self) -> dict[str, Any]:
        """The documented object, without the secret."""
        return {
            "id": self.id,
            "object": "webhook_endpoint",
            "name": self.name,
            "url": self.url,
            "event_types": self.event_types,
            "status": self.status,
            "secret_preview": f"{self.secret[:8]}...{self.secret[-6:]}",
            "last_success_at": _stamp(self.last_success_at),
            "last_failure_at": _stamp(self.last_failure_at),
            "failure_count": self.failure_count,
            "created_at": stamp(self.created_at),
            "updated_at": stamp(self.updated_at),
            "disabled_at": _stamp(self.disabled_at),
            "revoked_at": _stamp(self.revoked_at),
        }

    def with_secret(self) -> dict[str, Any]:
        """The object as only create and rotate answer it, with the secret after its preview."""
        members = self.as_json()
        head = ("id", "object", "name", "url", "event_types", "status", "secret_preview")
        return {**{name: members[name] for name in head}, "signing_secret": self.secret, **members}


def _stamp(at: datetime | None) -> str | None:
    return None if at is None else stamp(at)


class Endpoints:
    """The endpoints of every account, oldest first."""

    def __init__(self, context: Context) -> None:
        self._settings = context.settings
        self._clock = context.clock
        self._scheduler = context.scheduler
        self.by_id: Records[Endpoint] = Records("Webhook endpoint", context.keep)

    def create(self, account: str, body: dict[str, Any]) -> Endpoint:
        """The new endpoint. Raises `validation_failed` and `webhook_url_rejected`."""
        request = validate(EndpointRequest, body)
        check_url(request.url, self._settings.url_rules)
        secret, now = new_secret(self._settings.scheme.key_form), self._clock.now()
        endpoint = Endpoint(new_id("whend"), account, request.name, request.url, request.event_types, secret, now, now)
        self.by_id[endpoint.id] = endpoint
        return endpoint

    def change(self, endpoint: Endpoint, body: dict[str, Any]) -> Endpoint:
        """The changed endpoint. Raises like `create`, and `not_found` for a revoked one."""
        _check_not_revoked(endpoint)
        changes = validate(EndpointChange, body).model_dump(exclude_unset=True)
        if "url" in changes:
            check_url(changes["url"], self._settings.url_rules)
        now, status = self._clock.now(), changes.pop("status", endpoint.status)
        for name, value in {**changes, "updated_at": now}.items():
            setattr(endpoint, name, value)
        if status != endpoint.status:
            endpoint.set_status(status, now)
        return endpoint

    def rotate(self, endpoint: Endpoint) -> Endpoint:
        """The endpoint with a new secret. Raises `not_found` for a revoked one."""
        _check_not_revoked(endpoint)
        secret = new_secret(self._settings.scheme.key_form)
        endpoint.rotate(secret, at=self._clock.now(), time=self._scheduler.time())
        return endpoint

    def remove(self, endpoint: Endpoint) -> None:
        """Revoke the endpoint; the settings choose whether it stays in the list."""
        endpoint.status = "revoked"
        endpoint.revoked_at = endpoint.updated_at = self._clock.now()
        if self._settings.deleted_endpoints == "gone":
            del self.by_id[endpoint.id]


def _check_not_revoked(endpoint: Endpoint) -> None:
    if endpoint.revoked_at is not None:
        raise missing("Webhook endpoint")


def check_url(url: str, rules: Literal["local", "strict"]) -> None:
    """Raises `webhook_url_rejected` for a URL that Rivya is documented to refuse; `local` allows this network."""
    reason = _refusal(url, rules)
    if reason is not None:
        raise RivyaError("webhook_url_rejected", f"The endpoint URL {reason}.")


def _refusal(url: str, rules: Literal["local", "strict"]) -> str | None:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return "can't be read"
    if parts.scheme not in ("http", "https") or not host:
        return "must be an absolute https URL"
    if parts.username is not None or parts.password is not None or parts.fragment:
        return "must not carry credentials or a fragment"
    if _is_internal(host) and rules == "local":
        return None
    if parts.scheme != "https":
        return "must use https"
    return "must not point into a private network" if _is_internal(host) else None


def _is_internal(host: str) -> bool:
    """A name without a dot is a machine of this network, as in a compose file."""
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return "." not in host or host.endswith((".localhost", ".local", ".internal"))
