"""Compares the live endpoint with its state at Rivya, repairs differences and removes surplus endpoints."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import structlog
from prometheus_client import Counter, Gauge

from app.core.clock import Clock
from app.core.encryption import SecretBox
from app.core.errors import HealthCheck
from app.endpoint.errors import OutcomeUnknown, is_gone
from app.endpoint.models import NAME, Endpoint, State, callback_url, is_same_host, is_same_place, path_key_of
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

REPAIRS = Counter("receiver_endpoint_repairs", "Repairs of our endpoint at Rivya, by kind.", ["repair"])
ORPHANS = Gauge("receiver_endpoint_orphans", "Endpoints at Rivya of our name and host that the database lacks.")

EVENT_TYPES: Final = ("generation.succeeded", "generation.failed")
_ORPHANS_HELP: Final = (
    "`rivya-receiver endpoint orphans` lists them, and `rivya-receiver endpoint orphans remove ID` removes one"
)


def differences(actual: WebhookEndpoint, *, url: str) -> dict[str, Any]:
    """The fields that have to change, each with its right value, `status` first; one that Rivya leaves out is right."""
    differing: dict[str, Any] = {}
    if actual.status is not None and actual.status != "active":
        differing["status"] = "active"
    if actual.url and not is_same_place(actual.url, url):
        differing["url"] = url
    if actual.event_types and set(actual.event_types) != set(EVENT_TYPES):
        differing["event_types"] = list(EVENT_TYPES)
    return differing


def repaired(actual: WebhookEndpoint | None, differing: Mapping[str, Any], *, url: str) -> bool:
    """True if none of the fields in `differing` differs any more."""
    return actual is not None and not differences(actual, url=url).keys() & differing.keys()


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

    async def change(
        self,
        endpoint: Endpoint,
        *,
        event: str | None = None,
        detail: str | None = None,
        **values: Any,  # noqa: ANN401 - columns
    ) -> None:
        """Set columns of an endpoint now, and add `event` to its history. Raises `StaleState`."""
        await self.repository.change(endpoint, now=self.clock.now(), event=event, detail=detail, **values)


class Inspection:
    """Compares and changes an endpoint at Rivya in place. Each repair is logged, counted and put into the history."""

    def __init__(self, context: StepContext) -> None:
        self._context = context
        self.asked_at: datetime | None = None
        """When this process requested a test delivery last."""
        self.orphans: list[WebhookEndpoint] = []
        """Endpoints of our name and host that the database does not know, as the last check found them."""

    async def check(self, wanted: Endpoint, known: Sequence[Endpoint]) -> bool:
        """Retire it if it is gone, repair differences, record failures, remove others that carry a key of ours.

        False if it can't be repaired and a new endpoint has to replace it. An answer that can't be read changes
        nothing. Raises `RivyaError` if Rivya can't be asked.
        """
        await self._context.repository.drop_expired_secrets(now=self._context.clock.now())
        try:
            response = await self._context.client.list_endpoints()
        except RivyaUnreadable:
            response = EndpointList((), complete=False)
        actual = next((listed for listed in response.endpoints if listed.id == wanted.rivya_id), None)
        # A missing entry does not prove that the endpoint is gone: the list may have pages that it does not announce.
        actual = actual or await self._get(wanted)
        if actual is None:
            return True
        if actual.revoked_at is not None:
            await self.record_gone(wanted)
            return True
        await self._remove_others(response.endpoints, known)
        await self._find_orphans(response.endpoints)
        await self._record_failures(wanted, actual)
        differing = differences(actual, url=self._context.url(wanted.path_key))
        if differing:
            return await self._patch(wanted, differing, kind=f"{next(iter(differing))}_restored")
        is_overdue = wanted.test_asked_at is not None and not wanted.is_awaiting_proof(self._context.clock.now())
        is_lost = wanted.test_asked_at not in (None, self.asked_at)  # by a process that may have died before it sent it
        if wanted.secret_proven_at is None and (is_overdue or is_lost):
            # The process that recorded the request of a test may have been killed before it could send it.
            await self._context.change(wanted, event="test_unanswered", test_asked_at=None)
        return True

    async def relocate(self, wanted: Endpoint) -> bool:
        """Change the URL and keep the secret; False if Rivya refuses and a new endpoint is needed.

        Raises `RivyaError` if Rivya can't be asked, or allows no endpoint at that URL.
        """
        return await self._patch(wanted, {"url": self._context.url(wanted.path_key)}, kind="moved")

    async def record_gone(self, wanted: Endpoint) -> None:
        """Retire an endpoint that was removed at Rivya; its secret is not accepted any more, as this was on purpose."""
        now = self._context.clock.now()
        await self._context.repository.retire(wanted, now=now, overlap=timedelta(0), why="gone_at_rivya")
        _count_repair("gone", wanted)

    async def _patch(self, wanted: Endpoint, differing: Mapping[str, Any], *, kind: str) -> bool:
        """Change the differing fields; False if Rivya refuses, or if they still differ afterwards."""
        url = self._context.url(wanted.path_key)
        if not repaired(await self._send_patch(wanted.rivya_id or "", differing), differing, url=url):
            _count_repair(f"not_{kind}", wanted)
            return False
        await self._context.change(wanted, event=kind, url=url, last_error=None, test_asked_at=None)
        _count_repair(kind, wanted)
        return True

    async def _send_patch(self, rivya_id: str, fields: Mapping[str, Any]) -> WebhookEndpoint | None:
        """The endpoint as Rivya shows it after the change; None if Rivya refuses or its answer can't be read."""
        try:
            actual = await self._context.client.update_endpoint(rivya_id, **fields)
            return actual or await self._context.client.get_endpoint(rivya_id)
        except (RivyaUnauthorized, RivyaForbidden, RivyaRateLimited):
            raise
        except RivyaRefused as error:
            if error.code == "webhook_url_rejected":
                raise
            return None
        except RivyaUnreadable:
            return None

    async def _get(self, wanted: Endpoint) -> WebhookEndpoint | None:
        """The endpoint at Rivya, None if its state is unknown; retires it if Rivya says that it does not exist."""
        try:
            return await self._context.client.get_endpoint(wanted.rivya_id or "")
        except RivyaUnreadable:
            return None
        except RivyaNotFound as error:
            if is_gone(error):
                await self.record_gone(wanted)
            return None

    async def _record_failures(self, wanted: Endpoint, actual: WebhookEndpoint) -> None:
        """Store Rivya's delivery counts; log if there are new failures since the last check."""
        counts = {name: getattr(actual, name) for name in ("failure_count", "last_success_at", "last_failure_at")}
        values = {"last_error": None, **counts}
        succeeded, failed = actual.last_success_at, actual.last_failure_at
        is_newer = failed is not None and failed != wanted.last_failure_at and (not succeeded or failed > succeeded)
        is_failing = is_newer or actual.failure_count > wanted.failure_count
        if any(getattr(wanted, name) != value for name, value in values.items()):
            await self._context.change(wanted, event="deliveries_failing" if is_failing else None, **values)
        if is_failing:
            log.warning(
                "endpoint.deliveries_failing",
                endpoint_id=wanted.id,
                rivya_id=wanted.rivya_id,
                failure_count=actual.failure_count,
                last_success_at=str(succeeded),
                last_failure_at=str(failed),
            )

    async def _remove_others(self, listed: Sequence[WebhookEndpoint], known: Sequence[Endpoint]) -> None:
        """Delete endpoints left over from a create that took effect after all: they carry a key of our database."""
        keys = await self._context.repository.path_keys_among({path_key_of(one.url) or "" for one in listed})
        wanted = {endpoint.rivya_id for endpoint in known if endpoint.state is not State.RETIRED}
        for endpoint in listed:
            if path_key_of(endpoint.url) in keys and endpoint.id not in wanted and endpoint.revoked_at is None:
                await self._context.client.delete_endpoint(endpoint.id)
                REPAIRS.labels("extra_removed").inc()
                log.warning("endpoint.repair", repair="extra_removed", rivya_id=endpoint.id)

    async def _find_orphans(self, listed: Sequence[WebhookEndpoint]) -> None:
        context, before = self._context, {orphan.id for orphan in self.orphans}
        self.orphans[:] = await find_orphans(context.repository, listed, public_url=context.public_url)
        ORPHANS.set(len(self.orphans))
        for orphan in self.orphans:
            if orphan.id not in before:
                log.warning("endpoint.orphan_found", rivya_id=orphan.id)


def _count_repair(kind: str, wanted: Endpoint) -> None:
    REPAIRS.labels(kind).inc()
    log.warning("endpoint.repair", repair=kind, endpoint_id=wanted.id, rivya_id=wanted.rivya_id)


async def find_orphans(
    repository: EndpointRepository, listed: Iterable[WebhookEndpoint], *, public_url: str
) -> list[WebhookEndpoint]:
    """Those of `listed` with our name and host that the database does not know. Raises `DatabaseUnavailable`."""
    ours = [one for one in listed if one.name == NAME and one.revoked_at is None and is_same_host(one.url, public_url)]
    keys = await repository.path_keys_among({path_key_of(one.url) or "" for one in ours})
    ids = await repository.rivya_ids_among({one.id for one in ours})
    return [one for one in ours if path_key_of(one.url) not in keys and one.id not in ids]


def describe_orphans(orphans: Sequence[WebhookEndpoint]) -> HealthCheck:
    """The check for `/readyz` and `check`; not required, since deliveries to our own endpoint are recorded."""
    detail = "none at Rivya"
    if orphans:
        ids = ", ".join(one.id for one in orphans)
        detail = f"Rivya also delivers to {ids}, of our name and host but not of this database; {_ORPHANS_HELP}"
    remedy = f"Rivya also delivers to endpoints of a lost database; {_ORPHANS_HELP}"
    return HealthCheck("endpoint_orphans", ok=not orphans, detail=detail, is_required=False, remedy=remedy)
