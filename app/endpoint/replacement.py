"""What follows a changed public URL: the endpoint is moved in place, or replaced by a new one and then removed."""

from datetime import timedelta
from typing import Final

import structlog

from app.core.clock import Clock
from app.endpoint.acts import Endpoint
from app.endpoint.callback_url import is_same_place
from app.endpoint.failures import is_gone
from app.endpoint.registry import Registry
from app.rivya.client import RivyaClient
from app.rivya.errors import RivyaForbidden, RivyaRateLimited, RivyaRefused, RivyaUnauthorized, RivyaUnreadable

OVERLAP: Final = timedelta(hours=24)
"""The secrets of a replaced endpoint are accepted so long: deliveries of before are still on their way."""

log = structlog.stdlib.get_logger(__name__)


class Replacement:
    """Old endpoints of ours at Rivya."""

    def __init__(self, client: RivyaClient, registry: Registry, clock: Clock) -> None:
        self._client = client
        self._registry = registry
        self._clock = clock

    async def move(self, serving: Endpoint, url: str) -> bool:
        """Change the URL in place, which keeps the secret; False where Rivya won't have it and a new one is needed.

        Raises `RivyaError` where Rivya can't be asked, or allows no endpoint at that URL.
        """
        told_url = await self._ask_to_move(serving, url)
        if told_url is None or not is_same_place(told_url, url):
            log.info("endpoint.not_movable", endpoint_id=serving.id, rivya_id=serving.rivya_id)
            return False
        await self._registry.note_url(serving, url=url, now=self._clock.now())
        log.info("endpoint.moved", endpoint_id=serving.id, rivya_id=serving.rivya_id)
        return True

    async def remove(self, retiring: Endpoint) -> None:
        """Delete an endpoint that was replaced. Raises `RivyaError` where that isn't certain."""
        try:
            await self._client.delete_endpoint(retiring.rivya_id or "")
        except RivyaRefused as error:
            if not is_gone(error):
                raise
        await self._registry.retire(retiring, now=self._clock.now(), overlap=OVERLAP)
        log.info("endpoint.retired", endpoint_id=retiring.id, rivya_id=retiring.rivya_id)

    async def _ask_to_move(self, serving: Endpoint, url: str) -> str | None:
        """The URL that Rivya calls after we asked; None where it refuses or leaves it open."""
        rivya_id = serving.rivya_id or ""
        try:
            told = await self._client.update_endpoint(rivya_id, url=url)
            return (told or await self._client.get_endpoint(rivya_id)).url
        except (RivyaUnauthorized, RivyaForbidden, RivyaRateLimited):
            raise
        except RivyaRefused as error:
            if error.code == "webhook_url_rejected":
                raise
            return None
        except RivyaUnreadable:
            return None
