"""Sees again and again that the live endpoint is at Rivya as it is wanted, alone, and that its deliveries succeed."""

from collections.abc import Sequence
from typing import Any

import structlog

from app.endpoint.callback_url import path_key_of
from app.endpoint.endpoint import Endpoint
from app.endpoint.failures import is_gone
from app.endpoint.means import Means
from app.endpoint.measures import REPAIRS
from app.endpoint.repair import Repair
from app.endpoint.state import State
from app.endpoint.wanted import differences
from app.rivya.endpoint_payload import EndpointList, WebhookEndpoint
from app.rivya.errors import RivyaNotFound, RivyaUnreadable

log = structlog.stdlib.get_logger(__name__)


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
        listed = await self._list()
        found = next((told for told in listed.endpoints if told.id == wanted.rivya_id), None)
        # Not listed is not gone: a list may have pages that it doesn't tell of.
        found = found or await self._get(wanted)
        if found is None:
            return True
        if found.revoked_at is not None:
            await self._repair.note_gone(wanted)
            return True
        await self._remove_others(listed.endpoints, known)
        await self._note_told(wanted, found)
        differing = differences(found, url=self._with.url(wanted.path_key))
        if not differing:
            await self._ask_again(wanted)
            return True
        return await self._repair.mend(wanted, differing, kind=f"{differing[0].field}_restored")

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
                await self._repair.note_gone(wanted)
            return None

    async def _note_told(self, wanted: Endpoint, found: WebhookEndpoint) -> None:
        """Keep how Rivya's deliveries fare, and say so where they fail more than at the last look."""
        news: dict[str, Any] = {
            "last_error": None,
            "failure_count": found.failure_count,
            "last_success_at": found.last_success_at,
            "last_failure_at": found.last_failure_at,
        }
        is_failing = found.failure_count > wanted.failure_count or _is_newer_failure(wanted, found)
        if any(getattr(wanted, name) != value for name, value in news.items()):
            event = "deliveries_failing" if is_failing else None
            await self._with.registry.change(wanted, now=self._with.clock.now(), event=event, **news)
        if is_failing:
            log.warning(
                "endpoint.deliveries_failing",
                endpoint_id=wanted.id,
                rivya_id=wanted.rivya_id,
                failure_count=found.failure_count,
                last_success_at=str(found.last_success_at),
                last_failure_at=str(found.last_failure_at),
            )

    async def _remove_others(self, listed: Sequence[WebhookEndpoint], known: Sequence[Endpoint]) -> None:
        """Left over from a create that took effect after all: they carry a key that only our database knows."""
        carried = {path_key_of(told.url) or "" for told in listed}
        # A foreign URL may hold what no database takes, and no key of ours.
        keys = await self._with.registry.path_keys_among(
            {key for key in carried if key.isascii() and key.isprintable()}
        )
        wanted = {endpoint.rivya_id for endpoint in known if endpoint.state is not State.RETIRED}
        for told in listed:
            if path_key_of(told.url) in keys and told.id not in wanted and told.revoked_at is None:
                await self._with.client.delete_endpoint(told.id)
                REPAIRS.labels("extra_removed").inc()
                log.warning("endpoint.repair", repair="extra_removed", rivya_id=told.id)


def _is_newer_failure(wanted: Endpoint, found: WebhookEndpoint) -> bool:
    """It failed since the last look, and has not succeeded since."""
    failed = found.last_failure_at
    if failed is None or failed == wanted.last_failure_at:
        return False
    return found.last_success_at is None or failed > found.last_success_at
