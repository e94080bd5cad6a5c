"""Changes our endpoint at Rivya in place, and tells whether that worked; each repair is logged, counted and kept."""

from collections.abc import Sequence
from datetime import timedelta

import structlog

from app.endpoint.endpoint import Endpoint
from app.endpoint.means import Means
from app.endpoint.measures import REPAIRS
from app.endpoint.wanted import Difference, repaired
from app.rivya.endpoint_payload import WebhookEndpoint
from app.rivya.errors import RivyaForbidden, RivyaRateLimited, RivyaRefused, RivyaUnauthorized, RivyaUnreadable

log = structlog.stdlib.get_logger(__name__)


class Repair:
    """What is not as wanted is patched; where Rivya won't have that, the caller makes a new endpoint first."""

    def __init__(self, means: Means) -> None:
        self._with = means

    async def move(self, wanted: Endpoint) -> bool:
        """Change the URL in place, which keeps the secret; False where Rivya won't have it and a new one is needed.

        Raises `RivyaError` where Rivya can't be asked, or allows no endpoint at that URL.
        """
        url = self._with.url(wanted.path_key)
        return await self.mend(wanted, [Difference("url", url)], kind="moved")

    async def mend(self, wanted: Endpoint, found: Sequence[Difference], *, kind: str) -> bool:
        """Patch what differs; False where Rivya refuses, or where it says that it did and did not."""
        url = self._with.url(wanted.path_key)
        told = await self._patch(wanted, found)
        if not repaired(told, found, url=url):
            self._say(wanted, f"not_{kind}")
            return False
        now = self._with.clock.now()
        await self._with.registry.change(wanted, now=now, event=kind, url=url, last_error=None, test_asked_at=None)
        self._say(wanted, kind)
        return True

    async def note_gone(self, wanted: Endpoint) -> None:
        """It was removed at Rivya, by somebody who had a reason: its secret is no longer accepted."""
        await self._with.registry.retire(wanted, now=self._with.clock.now(), overlap=timedelta(0), why="gone_at_rivya")
        self._say(wanted, "gone")

    def _say(self, wanted: Endpoint, kind: str) -> None:
        REPAIRS.labels(kind).inc()
        log.warning("endpoint.repair", repair=kind, endpoint_id=wanted.id, rivya_id=wanted.rivya_id)

    async def _patch(self, wanted: Endpoint, found: Sequence[Difference]) -> WebhookEndpoint | None:
        """The endpoint as Rivya tells it after we asked; None where it refuses or leaves it open."""
        rivya_id = wanted.rivya_id or ""
        try:
            told = await self._with.client.update_endpoint(rivya_id, **{one.field: one.wanted for one in found})
            return told or await self._with.client.get_endpoint(rivya_id)
        except (RivyaUnauthorized, RivyaForbidden, RivyaRateLimited):
            raise
        except RivyaRefused as error:
            if error.code == "webhook_url_rejected":
                raise
            return None
        except RivyaUnreadable:
            return None
