"""Sees at start whether the endpoint that serves still exists at Rivya, enabled, and alone."""

from collections.abc import Sequence
from datetime import timedelta

import structlog

from app.core.clock import Clock
from app.endpoint.acts import Endpoint
from app.endpoint.callback_url import path_key_of
from app.endpoint.failures import is_gone, read_failure
from app.endpoint.registry import Registry
from app.endpoint.state import State
from app.rivya.client import RivyaClient
from app.rivya.errors import (
    RivyaForbidden,
    RivyaNotFound,
    RivyaRateLimited,
    RivyaRefused,
    RivyaUnauthorized,
    RivyaUnreadable,
)
from app.rivya.payloads import EndpointList, WebhookEndpoint

log = structlog.stdlib.get_logger(__name__)


class Inspection:
    """Compares one endpoint of ours with what Rivya says; what Rivya leaves open changes nothing."""

    def __init__(self, client: RivyaClient, registry: Registry, clock: Clock) -> None:
        self._client = client
        self._registry = registry
        self._clock = clock

    async def check(self, serving: Endpoint, known: Sequence[Endpoint]) -> None:
        """Retire it if it is gone, enable it if it is disabled, remove others that carry a key of ours.

        Raises `RivyaError` where Rivya can't be asked.
        """
        listed = await self._list()
        found = next((told for told in listed.endpoints if told.id == serving.rivya_id), None)
        # Not listed is not gone: a list may have pages that it doesn't tell of.
        found = found or await self._get(serving)
        if found is None:
            return
        if found.revoked_at is not None:
            await self.note_gone(serving)
            return
        error = await self._enable(serving) if found.status == "disabled" else None
        await self._remove_others(listed.endpoints, known)
        await self._registry.note_error(serving, code=error, now=self._clock.now())

    async def note_gone(self, endpoint: Endpoint) -> None:
        """It was deleted at Rivya, by somebody who had a reason: its secret is no longer accepted."""
        log.warning("endpoint.gone", endpoint_id=endpoint.id, rivya_id=endpoint.rivya_id)
        await self._registry.retire(endpoint, now=self._clock.now(), overlap=timedelta(0))

    async def _list(self) -> EndpointList:
        try:
            return await self._client.list_endpoints()
        except RivyaUnreadable:
            return EndpointList((), complete=False)

    async def _get(self, serving: Endpoint) -> WebhookEndpoint | None:
        """What Rivya says of it, None where that is unknown; retires it where Rivya says there is no such endpoint."""
        try:
            return await self._client.get_endpoint(serving.rivya_id or "")
        except RivyaUnreadable:
            return None
        except RivyaNotFound as error:
            if is_gone(error):
                await self.note_gone(serving)
            return None

    async def _enable(self, serving: Endpoint) -> str | None:
        """Returns why it stays disabled, None once it is enabled."""
        rivya_id = serving.rivya_id or ""
        try:
            await self._client.update_endpoint(rivya_id, status="active")
        except (RivyaUnauthorized, RivyaForbidden, RivyaRateLimited):
            raise
        except RivyaRefused as error:
            code = read_failure(error).code
            log.warning("endpoint.disabled", endpoint_id=serving.id, rivya_id=rivya_id, code=code)
            return "endpoint_disabled"
        log.warning("endpoint.enabled", endpoint_id=serving.id, rivya_id=rivya_id)
        return None

    async def _remove_others(self, listed: Sequence[WebhookEndpoint], known: Sequence[Endpoint]) -> None:
        """Left over from a create that took effect after all: they carry a key that only our database knows."""
        keys = {endpoint.path_key for endpoint in known}
        wanted = {endpoint.rivya_id for endpoint in known if endpoint.state is not State.RETIRED}
        for told in listed:
            if path_key_of(told.url) in keys and told.id not in wanted and told.revoked_at is None:
                await self._client.delete_endpoint(told.id)
                log.warning("endpoint.extra_removed", rivya_id=told.id)
