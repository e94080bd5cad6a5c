"""Compares the live endpoint with its state at Rivya, repairs differences and removes surplus endpoints."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import structlog

from app.core.clock import Clock
from app.core.encryption import SecretBox
from app.endpoint.errors import OutcomeUnknown, is_gone
from app.endpoint.metrics import REPAIRS
from app.endpoint.models import Endpoint, State, callback_url, is_same_place, path_key_of
from app.endpoint.repository import EndpointRepository
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


NAME: Final = "rivya-receiver"
EVENT_TYPES: Final = ("generation.succeeded", "generation.failed")


@dataclass(frozen=True, slots=True)
class Difference:
    """A field that differs at Rivya, and the value that it should have."""

    field: str
    wanted: Any


def differences(actual: WebhookEndpoint, *, url: str) -> list[Difference]:
    """Every field that has to change, `status` first; a field that Rivya leaves out counts as right."""
    differing = []
    if actual.status is not None and actual.status != "active":
        differing.append(Difference("status", "active"))
    if actual.url and not is_same_place(actual.url, url):
        differing.append(Difference("url", url))
    if actual.event_types and set(actual.event_types) != set(EVENT_TYPES):
        differing.append(Difference("event_types", list(EVENT_TYPES)))
    return differing


def repaired(actual: WebhookEndpoint | None, differing: Sequence[Difference], *, url: str) -> bool:
    """True if none of the fields in `differing` differs any more."""
    return actual is not None and not {one.field for one in differences(actual, url=url)} & {
        one.field for one in differing
    }


@dataclass(frozen=True, slots=True)
class StepContext:
    """The dependencies and settings of the registration steps. `hold` renews the lease and raises `LeaseLost`."""

    client: RivyaClient
    repository: EndpointRepository
    clock: Clock
    keys: SecretBox
    public_url: str
    secret_overlap: timedelta
    hold: Callable[[], Awaitable[None]]

    def url(self, path_key: str) -> str:
        """The callback URL that the endpoint with this path key should have."""
        return callback_url(self.public_url, path_key)

    def require_key(self) -> None:
        """Raise `OutcomeUnknown` without an encryption key, because a new secret could not be stored."""
        if self.keys.newest is None:
            raise OutcomeUnknown("encryption_key_missing")


class Repair:
    """Changes an endpoint at Rivya in place. Each repair is logged, counted and written to the history."""

    def __init__(self, context: StepContext) -> None:
        self._context = context

    async def relocate(self, wanted: Endpoint) -> bool:
        """Change the URL and keep the secret; False if Rivya refuses and a new endpoint is needed.

        Raises `RivyaError` if Rivya can't be asked, or allows no endpoint at that URL.
        """
        url = self._context.url(wanted.path_key)
        return await self.patch(wanted, [Difference("url", url)], kind="moved")

    async def patch(self, wanted: Endpoint, differing: Sequence[Difference], *, kind: str) -> bool:
        """Change the differing fields; False if Rivya refuses, or if they still differ afterwards."""
        url = self._context.url(wanted.path_key)
        actual = await self._send_patch(wanted, differing)
        if not repaired(actual, differing, url=url):
            self._log_repair(wanted, f"not_{kind}")
            return False
        now = self._context.clock.now()
        await self._context.repository.change(wanted, now=now, event=kind, url=url, last_error=None, test_asked_at=None)
        self._log_repair(wanted, kind)
        return True

    async def record_gone(self, wanted: Endpoint) -> None:
        """Retire an endpoint that was removed at Rivya; its secret is not accepted any more, as this was on purpose."""
        await self._context.repository.retire(
            wanted, now=self._context.clock.now(), overlap=timedelta(0), why="gone_at_rivya"
        )
        self._log_repair(wanted, "gone")

    def _log_repair(self, wanted: Endpoint, kind: str) -> None:
        REPAIRS.labels(kind).inc()
        log.warning("endpoint.repair", repair=kind, endpoint_id=wanted.id, rivya_id=wanted.rivya_id)

    async def _send_patch(self, wanted: Endpoint, differing: Sequence[Difference]) -> WebhookEndpoint | None:
        """The endpoint as Rivya shows it after the change; None if Rivya refuses or its answer can't be read."""
        rivya_id = wanted.rivya_id or ""
        try:
            actual = await self._context.client.update_endpoint(
                rivya_id, **{one.field: one.wanted for one in differing}
            )
            return actual or await self._context.client.get_endpoint(rivya_id)
        except (RivyaUnauthorized, RivyaForbidden, RivyaRateLimited):
            raise
        except RivyaRefused as error:
            if error.code == "webhook_url_rejected":
                raise
            return None
        except RivyaUnreadable:
            return None


class Inspection:
    """Compares an endpoint of ours with its state at Rivya; an answer that can't be read changes nothing."""

    def __init__(self, context: StepContext, repair: Repair) -> None:
        self._context = context
        self._repair = repair

    async def check(self, wanted: Endpoint, known: Sequence[Endpoint]) -> bool:
        """Retire it if it is gone, repair differences, record failures, remove others that carry a key of ours.

        False if it can't be repaired and a new endpoint has to replace it. Raises `RivyaError` if Rivya can't be
        asked.
        """
        await self._context.repository.drop_expired_secrets(now=self._context.clock.now())
        response = await self._list()
        actual = next((listed for listed in response.endpoints if listed.id == wanted.rivya_id), None)
        # A missing entry does not prove that the endpoint is gone: the list may have pages that it does not announce.
        actual = actual or await self._get(wanted)
        if actual is None:
            return True
        if actual.revoked_at is not None:
            await self._repair.record_gone(wanted)
            return True
        await self._remove_others(response.endpoints, known)
        await self._record_failures(wanted, actual)
        differing = differences(actual, url=self._context.url(wanted.path_key))
        if not differing:
            await self._ask_again(wanted)
            return True
        return await self._repair.patch(wanted, differing, kind=f"{differing[0].field}_restored")

    async def _ask_again(self, wanted: Endpoint) -> None:
        """Request another test delivery as long as no delivery has proved the secret.

        The process that recorded the earlier request may have been killed before it could send it.
        """
        if wanted.secret_proven_at is None and wanted.test_asked_at is not None:
            now = self._context.clock.now()
            await self._context.repository.change(wanted, now=now, event="test_unanswered", test_asked_at=None)

    async def _list(self) -> EndpointList:
        try:
            return await self._context.client.list_endpoints()
        except RivyaUnreadable:
            return EndpointList((), complete=False)

    async def _get(self, wanted: Endpoint) -> WebhookEndpoint | None:
        """The endpoint at Rivya, None if its state is unknown; retires it if Rivya says that it does not exist."""
        try:
            return await self._context.client.get_endpoint(wanted.rivya_id or "")
        except RivyaUnreadable:
            return None
        except RivyaNotFound as error:
            if is_gone(error):
                await self._repair.record_gone(wanted)
            return None

    async def _record_failures(self, wanted: Endpoint, actual: WebhookEndpoint) -> None:
        """Store Rivya's delivery counts; log if there are new failures since the last check."""
        news: dict[str, Any] = {
            "last_error": None,
            "failure_count": actual.failure_count,
            "last_success_at": actual.last_success_at,
            "last_failure_at": actual.last_failure_at,
        }
        is_failing = actual.failure_count > wanted.failure_count or _is_newer_failure(wanted, actual)
        if any(getattr(wanted, name) != value for name, value in news.items()):
            event = "deliveries_failing" if is_failing else None
            await self._context.repository.change(wanted, now=self._context.clock.now(), event=event, **news)
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
        """Delete endpoints left over from a create that took effect after all: they carry a key of our database."""
        carried = {path_key_of(endpoint.url) or "" for endpoint in listed}
        # The URL of a foreign endpoint may hold characters that a database refuses and that no key of ours has.
        keys = await self._context.repository.path_keys_among(
            {key for key in carried if key.isascii() and key.isprintable()}
        )
        wanted = {endpoint.rivya_id for endpoint in known if endpoint.state is not State.RETIRED}
        for endpoint in listed:
            if path_key_of(endpoint.url) in keys and endpoint.id not in wanted and endpoint.revoked_at is None:
                await self._context.client.delete_endpoint(endpoint.id)
                REPAIRS.labels("extra_removed").inc()
                log.warning("endpoint.repair", repair="extra_removed", rivya_id=endpoint.id)


def _is_newer_failure(wanted: Endpoint, actual: WebhookEndpoint) -> bool:
    """True if a delivery failed since the last check and none has succeeded after it."""
    failed = actual.last_failure_at
    if failed is None or failed == wanted.last_failure_at:
        return False
    return actual.last_success_at is None or failed > actual.last_success_at
