"""All webhook endpoints: made, changed, rotated and removed by their accounts."""

from typing import Any

from app.sandbox.clock import Clock
from app.sandbox.endpoint import EVENT_TYPES, Endpoint
from app.sandbox.errors import invalid, missing
from app.sandbox.ids import new_id, new_secret
from app.sandbox.settings import SandboxSettings
from app.sandbox.urls import check_url
from app.sandbox.work import Work


class Endpoints:
    """The registrations of every account, oldest first."""

    def __init__(self, settings: SandboxSettings, clock: Clock, work: Work) -> None:
        self._settings = settings
        self._clock = clock
        self._work = work
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
        endpoint.rotate(secret, at=self._clock.now(), time=self._work.time())
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
