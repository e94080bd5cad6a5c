"""All webhook endpoints: made, changed, rotated and removed by their accounts."""

import ipaddress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from urllib.parse import urlsplit

from app.sandbox.clock import Clock, Scheduler, new_id, new_secret, stamp
from app.sandbox.responses import RivyaError, invalid, missing
from app.sandbox.settings import SandboxSettings

# One webhook endpoint: where deliveries go, what signs them, and how they fared.


EVENT_TYPES = ("generation.succeeded", "generation.failed")


@dataclass
class Endpoint:
    """A registration; `rotated_at` is the time of the last rotation in seconds of `Scheduler.time`."""

    id: str
    account: str
    name: str
    url: str
    event_types: list[str]
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
        """Whether such an event is delivered here; undocumented types go to everybody."""
        return self.status == "active" and (event_type not in EVENT_TYPES or event_type in self.event_types)

    def rotate(self, secret: str, *, at: datetime, time: float) -> None:
        """Take a new secret; the old one is remembered for the overlap."""
        self.past_secrets = [*self.past_secrets, self.secret][-100:]
        self.previous_secret, self.secret = self.secret, secret
        self.rotated_at = time
        self.updated_at = at

    def signing_secrets(self, time: float, *, lag: float, overlap: float) -> list[str]:
        """The secrets that sign at this time, the foremost first."""
        if self.previous_secret is None:
            return [self.secret]
        age = time - self.rotated_at
        if age < lag:
            return [self.previous_secret]
        return [self.secret, self.previous_secret] if age < overlap else [self.secret]

    def set_status(self, status: str, at: datetime) -> None:
        """Enable or disable; enabling forgets the failures."""
        self.status = status
        self.updated_at = at
        self.disabled_at = at if status == "disabled" else None
        if status == "active":
            self.failure_count = 0

    def record_attempt(self, at: datetime, *, succeeded: bool, disable_after: int | None) -> None:
        """Keep how an attempt went; enough failures in a row disable the endpoint where that is switched on."""
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
            "last_success_at": _stamped(self.last_success_at),
            "last_failure_at": _stamped(self.last_failure_at),
            "failure_count": self.failure_count,
            "created_at": stamp(self.created_at),
            "updated_at": stamp(self.updated_at),
            "disabled_at": _stamped(self.disabled_at),
            "revoked_at": _stamped(self.revoked_at),
        }

    def with_secret(self) -> dict[str, Any]:
        """The object as create and rotate answer it: the only time the secret is told."""
        members = self.as_json()
        head = ("id", "object", "name", "url", "event_types", "status", "secret_preview")
        return {**{name: members[name] for name in head}, "signing_secret": self.secret, **members}


def _stamped(at: datetime | None) -> str | None:
    return None if at is None else stamp(at)


class Endpoints:
    """The registrations of every account, oldest first."""

    def __init__(self, settings: SandboxSettings, clock: Clock, scheduler: Scheduler) -> None:
        self._settings = settings
        self._clock = clock
        self._scheduler = scheduler
        self.by_id: dict[str, Endpoint] = {}

    def of(self, account: str) -> list[Endpoint]:
        """The account's endpoints."""
        return [endpoint for endpoint in self.by_id.values() if endpoint.account == account]

    def get(self, account: str, endpoint_id: str) -> Endpoint:
        """One endpoint of the account; raises `not_found`."""
        endpoint = self.by_id.get(endpoint_id)
        if endpoint is None or endpoint.account != account:
            raise missing("Webhook endpoint")
        return endpoint

    def create(self, account: str, body: dict[str, Any]) -> Endpoint:
        """Register an endpoint; raises `validation_failed` or `webhook_url_rejected`."""
        wanted = {"name": "", "event_types": list(EVENT_TYPES), **body}
        if "url" not in body:
            raise invalid("url is required.")
        self._check(wanted)
        now = self._clock.now()
        endpoint = Endpoint(
            id=new_id("whend"),
            account=account,
            name=wanted["name"],
            url=wanted["url"],
            event_types=wanted["event_types"],
            secret=new_secret(self._settings.scheme.key_form),
            created_at=now,
            updated_at=now,
        )
        self.by_id[endpoint.id] = endpoint
        return endpoint

    def change(self, endpoint: Endpoint, body: dict[str, Any]) -> Endpoint:
        """Change name, url, event_types or status; raises like `create`."""
        _in_service(endpoint)
        self._check(body)
        for member in ("name", "url", "event_types"):
            if member in body:
                setattr(endpoint, member, body[member])
        endpoint.updated_at = self._clock.now()
        if body.get("status", endpoint.status) != endpoint.status:
            endpoint.set_status(body["status"], endpoint.updated_at)
        return endpoint

    def rotate(self, endpoint: Endpoint) -> Endpoint:
        """Give the endpoint a new secret; raises `not_found` for a revoked one."""
        _in_service(endpoint)
        secret = new_secret(self._settings.scheme.key_form)
        endpoint.rotate(secret, at=self._clock.now(), time=self._scheduler.time())
        return endpoint

    def remove(self, endpoint: Endpoint) -> None:
        """Take the endpoint out of service, and off the list unless revoked ones are to stay on it."""
        endpoint.status = "revoked"
        endpoint.revoked_at = endpoint.updated_at = self._clock.now()
        if self._settings.deleted_endpoints == "gone":
            del self.by_id[endpoint.id]

    def _check(self, body: dict[str, Any]) -> None:
        if not isinstance(body.get("name", ""), str):
            raise invalid("name must be a string.")
        types = body.get("event_types", EVENT_TYPES)
        if not isinstance(types, list | tuple) or not types or any(kind not in EVENT_TYPES for kind in types):
            raise invalid(f"event_types must be a list of some of {', '.join(EVENT_TYPES)}.")
        if body.get("status", "active") not in ("active", "disabled"):
            raise invalid("status must be active or disabled.")
        if "url" in body:
            if not isinstance(body["url"], str):
                raise invalid("url must be a string.")
            check_url(body["url"], self._settings.url_rules)


def _in_service(endpoint: Endpoint) -> None:
    if endpoint.revoked_at is not None:
        raise missing("Webhook endpoint")


# Which endpoint URLs are allowed: Rivya's documented rules, or the same with this machine's own network let in.


def check_url(url: str, rules: Literal["local", "strict"]) -> None:
    """Raise `webhook_url_rejected` unless the URL may receive deliveries."""
    reason = _fault(url, rules)
    if reason is not None:
        raise RivyaError("webhook_url_rejected", f"The endpoint URL {reason}.")


def _fault(url: str, rules: Literal["local", "strict"]) -> str | None:
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
    """Names without a dot are machines of this network, as in a compose file."""
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return "." not in host or host.endswith((".localhost", ".local", ".internal"))
