"""Sees again and again that the live endpoint is at Rivya as it is wanted, alone, and that its deliveries succeed."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import structlog

from app.core.clock import Clock
from app.core.encryption import SecretBox
from app.endpoint.errors import Undecided, is_gone
from app.endpoint.metrics import REPAIRS
from app.endpoint.models import Endpoint, State, callback_url, is_same_place, path_key_of
from app.endpoint.repository import Registry, Rotations
from app.rivya.client import RivyaClient
from app.rivya.endpoint_payload import EndpointList, WebhookEndpoint
from app.rivya.errors import (
    RivyaForbidden,
    RivyaNotFound,
    RivyaRateLimited,
    RivyaRefused,
    RivyaUnauthorized,
    RivyaUnreadable,
)

log = structlog.stdlib.get_logger(__name__)


# How an endpoint at Rivya differs from the one that is wanted; pure.


NAME: Final = "rivya-receiver"
EVENT_TYPES: Final = ("generation.succeeded", "generation.failed")


@dataclass(frozen=True, slots=True)
class Difference:
    """One field that is not as wanted, and the value that makes it so."""

    field: str
    wanted: Any


def differences(actual: WebhookEndpoint, *, url: str) -> list[Difference]:
    """Every field that has to change, `status` first; a field that Rivya doesn't tell is taken to be right."""
    differing = []
    if actual.status is not None and actual.status != "active":
        differing.append(Difference("status", "active"))
    if actual.url and not is_same_place(actual.url, url):
        differing.append(Difference("url", url))
    if actual.event_types and set(actual.event_types) != set(EVENT_TYPES):
        differing.append(Difference("event_types", list(EVENT_TYPES)))
    return differing


def repaired(actual: WebhookEndpoint | None, differing: Sequence[Difference], *, url: str) -> bool:
    """None of the differences is there any more."""
    return actual is not None and not {one.field for one in differences(actual, url=url)} & {
        one.field for one in differing
    }


# What the steps of registration work with.


@dataclass(frozen=True, slots=True)
class Means:
    """`hold` renews the lease and raises `LeaseLost`."""

    client: RivyaClient
    registry: Registry
    rotations: Rotations
    clock: Clock
    keys: SecretBox
    public_url: str
    secret_overlap: timedelta
    hold: Callable[[], Awaitable[None]]

    def url(self, path_key: str) -> str:
        """The callback URL that is wanted."""
        return callback_url(self.public_url, path_key)

    def require_key(self) -> None:
        """Raise `Undecided` without an encryption key: a secret that can't be stored must not be asked for."""
        if self.keys.newest is None:
            raise Undecided("encryption_key_missing")


# Changes our endpoint at Rivya in place, and tells whether that worked; each repair is logged, counted and kept.


class Repair:
    """What is not as wanted is patched; where Rivya won't have that, the caller makes a new endpoint first."""

    def __init__(self, means: Means) -> None:
        self._with = means

    async def move(self, wanted: Endpoint) -> bool:
        """Change the URL in place, which keeps the secret; False where Rivya won't have it and a new one is needed.

        Raises `RivyaError` where Rivya can't be asked, or allows no endpoint at that URL.
        """
        url = self._with.url(wanted.path_key)
        return await self.patch(wanted, [Difference("url", url)], kind="moved")

    async def patch(self, wanted: Endpoint, differing: Sequence[Difference], *, kind: str) -> bool:
        """Patch what differs; False where Rivya refuses, or where it says that it did and did not."""
        url = self._with.url(wanted.path_key)
        actual = await self._send_patch(wanted, differing)
        if not repaired(actual, differing, url=url):
            self._log_repair(wanted, f"not_{kind}")
            return False
        now = self._with.clock.now()
        await self._with.registry.change(wanted, now=now, event=kind, url=url, last_error=None, test_asked_at=None)
        self._log_repair(wanted, kind)
        return True

    async def record_gone(self, wanted: Endpoint) -> None:
        """It was removed at Rivya, by somebody who had a reason: its secret is no longer accepted."""
        await self._with.registry.retire(wanted, now=self._with.clock.now(), overlap=timedelta(0), why="gone_at_rivya")
        self._log_repair(wanted, "gone")

    def _log_repair(self, wanted: Endpoint, kind: str) -> None:
        REPAIRS.labels(kind).inc()
        log.warning("endpoint.repair", repair=kind, endpoint_id=wanted.id, rivya_id=wanted.rivya_id)

    async def _send_patch(self, wanted: Endpoint, differing: Sequence[Difference]) -> WebhookEndpoint | None:
        """The endpoint as Rivya tells it after we asked; None where it refuses or leaves it open."""
        rivya_id = wanted.rivya_id or ""
        try:
            actual = await self._with.client.update_endpoint(rivya_id, **{one.field: one.wanted for one in differing})
            return actual or await self._with.client.get_endpoint(rivya_id)
        except (RivyaUnauthorized, RivyaForbidden, RivyaRateLimited):
            raise
        except RivyaRefused as error:
            if error.code == "webhook_url_rejected":
                raise
            return None
        except RivyaUnreadable:
            return None


class Inspection:
    """Compares an endpoint of ours with what Rivya says; what Rivya leaves open changes nothing."""

    def __init__(self, means: Means, repair: Repair) -> None:
        self._with = means
        self._repair = repair

    async def check(self, wanted: Endpoint, known: Sequence[Endpoint]) -> bool:
        """Retire it if it is gone, mend what differs, report failures, remove others that carry a key of ours.

        False where it can't be mended, and a new endpoint has to replace it. Raises `RivyaError` where Rivya can't be
        asked.
        """
        await self._with.registry.drop_expired_secrets(now=self._with.clock.now())
        response = await self._list()
        actual = next((listed for listed in response.endpoints if listed.id == wanted.rivya_id), None)
        # Not listed is not gone: a list may have pages that it doesn't tell of.
        actual = actual or await self._get(wanted)
        if actual is None:
            return True
        if actual.revoked_at is not None:
            await self._repair.record_gone(wanted)
            return True
        await self._remove_others(response.endpoints, known)
        await self._record_failures(wanted, actual)
        differing = differences(actual, url=self._with.url(wanted.path_key))
        if not differing:
            await self._ask_again(wanted)
            return True
        return await self._repair.patch(wanted, differing, kind=f"{differing[0].field}_restored")

    async def _ask_again(self, wanted: Endpoint) -> None:
        """As long as nothing has proved its secret, every look ends with a test delivery.

        The one asked for before may have been noted by a process that was killed before it could ask.
        """
        if wanted.secret_proven_at is None and wanted.test_asked_at is not None:
            now = self._with.clock.now()
            await self._with.registry.change(wanted, now=now, event="test_unanswered", test_asked_at=None)

    async def _list(self) -> EndpointList:
        try:
            return await self._with.client.list_endpoints()
        except RivyaUnreadable:
            return EndpointList((), complete=False)

    async def _get(self, wanted: Endpoint) -> WebhookEndpoint | None:
        """What Rivya says of it, None where that is unknown; retires it where Rivya says there is no such endpoint."""
        try:
            return await self._with.client.get_endpoint(wanted.rivya_id or "")
        except RivyaUnreadable:
            return None
        except RivyaNotFound as error:
            if is_gone(error):
                await self._repair.record_gone(wanted)
            return None

    async def _record_failures(self, wanted: Endpoint, actual: WebhookEndpoint) -> None:
        """Keep how Rivya's deliveries fare, and say so where they fail more than at the last look."""
        news: dict[str, Any] = {
            "last_error": None,
            "failure_count": actual.failure_count,
            "last_success_at": actual.last_success_at,
            "last_failure_at": actual.last_failure_at,
        }
        is_failing = actual.failure_count > wanted.failure_count or _is_newer_failure(wanted, actual)
        if any(getattr(wanted, name) != value for name, value in news.items()):
            event = "deliveries_failing" if is_failing else None
            await self._with.registry.change(wanted, now=self._with.clock.now(), event=event, **news)
        if is_failing:
            log.warning(
                "endpoint.deliveries_failing",
                endpoint_id=wanted.id,
                rivya_id=wanted.rivya_id,
                failure_count=actual.failure_count,
                last_success_at=str(actual.last_success_at),
                last_failure_at=str(actual.last_failure_at),
            )

    async def _remove_others(self, listed: Sequence[WebhookEndpoint], known: Sequence[Endpoint]) -> None:
        """Left over from a create that took effect after all: they carry a key that only our database knows."""
        carried = {path_key_of(endpoint.url) or "" for endpoint in listed}
        # A foreign URL may hold what no database takes, and no key of ours.
        keys = await self._with.registry.path_keys_among(
            {key for key in carried if key.isascii() and key.isprintable()}
        )
        wanted = {endpoint.rivya_id for endpoint in known if endpoint.state is not State.RETIRED}
        for endpoint in listed:
            if path_key_of(endpoint.url) in keys and endpoint.id not in wanted and endpoint.revoked_at is None:
                await self._with.client.delete_endpoint(endpoint.id)
                REPAIRS.labels("extra_removed").inc()
                log.warning("endpoint.repair", repair="extra_removed", rivya_id=endpoint.id)


def _is_newer_failure(wanted: Endpoint, actual: WebhookEndpoint) -> bool:
    """It failed since the last look, and has not succeeded since."""
    failed = actual.last_failure_at
    if failed is None or failed == wanted.last_failure_at:
        return False
    return actual.last_success_at is None or failed > actual.last_success_at
