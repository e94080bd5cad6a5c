"""One webhook endpoint: where deliveries go, what signs them, and how they fared."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from app.sandbox.clock import stamp

EVENT_TYPES = ("generation.succeeded", "generation.failed")


@dataclass
class Endpoint:
    """A registration; `rotated_at` and `previous_secret` are about the last rotation, on the scale of `Work.time`."""

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

    def note(self, at: datetime, *, succeeded: bool, disable_after: int | None) -> None:
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
        told = self.as_json()
        head = ("id", "object", "name", "url", "event_types", "status", "secret_preview")
        return {**{name: told[name] for name in head}, "signing_secret": self.secret, **told}


def _stamped(moment: datetime | None) -> str | None:
    return None if moment is None else stamp(moment)
