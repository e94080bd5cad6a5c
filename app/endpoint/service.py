"""Shows our registration to callers, and lets an admin replace the secret or the pinned scheme, or remove orphans."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

import structlog

from app.core.auth import Caller, Role
from app.core.clock import Clock
from app.core.database import Database
from app.core.errors import NotFound, ServiceError
from app.endpoint.errors import explain, read_failure
from app.endpoint.inspection import find_orphans
from app.endpoint.keyring import Keyring
from app.endpoint.models import Endpoint, current, live
from app.endpoint.proofs import ProofRepository
from app.endpoint.repository import EndpointRepository, StaleState
from app.endpoint.schemas import EndpointView, HistoryView
from app.rivya.client import RivyaClient
from app.rivya.endpoint_payload import WebhookEndpoint
from app.rivya.errors import RivyaError

log = structlog.stdlib.get_logger(__name__)

_SECONDS_BETWEEN_READS: Final = 0.2


class EndpointCommands:
    """The requests of an admin, stored for the process with the lease.

    Methods raise `NotFound`, `DatabaseUnavailable`.
    """

    def __init__(self, database: Database, *, clock: Clock) -> None:
        self._repository = EndpointRepository(database)
        self._proofs = ProofRepository(database)
        self._clock = clock

    async def request_rotation(self) -> Endpoint:
        """Request a new secret; returns the endpoint that gets it. Raises `NotFound` without an endpoint."""
        wanted = live(await self._repository.endpoints())
        if wanted is None:
            raise NotFound("No endpoint is registered yet, so there is no secret to replace.")
        try:
            now = self._clock.now()
            await self._repository.change(
                wanted, now=now, event="rotation_requested", detail="operator", rotation_requested_at=now
            )
        except StaleState as error:
            raise NotFound("The endpoint has just been replaced; look again.") from error
        log.info("endpoint.rotation_requested", endpoint_id=wanted.id)
        return wanted

    async def rotated(self, wanted: Endpoint, *, patience: timedelta) -> bool:
        """True when the secret is replaced; False after `patience`, while the replacement goes on."""
        try:
            async with asyncio.timeout(patience.total_seconds()):
                while True:
                    endpoints = await self._repository.endpoints()
                    known = next((endpoint for endpoint in endpoints if endpoint.id == wanted.id), None)
                    if known is None or known.rotation == "none":
                        return True
                    await asyncio.sleep(_SECONDS_BETWEEN_READS)  # the leader may be another process
        except TimeoutError:
            return False

    async def repin(self) -> Endpoint:
        """Remove the pinned scheme; the next delivery proves it again, and a test delivery is requested."""
        endpoint = current(await self._repository.endpoints())
        if endpoint is None:
            raise NotFound("No endpoint is registered yet, so no scheme is pinned.")
        await self._proofs.unpin(endpoint, now=self._clock.now())
        log.warning("signature.unpinned", endpoint_id=endpoint.id, scheme=endpoint.scheme)
        return endpoint


class EndpointQueries:
    """Our endpoint and its history, read from the database; no secrets. Methods raise `DatabaseUnavailable`."""

    def __init__(self, database: Database, keyring: Keyring, *, clock: Clock) -> None:
        self._repository = EndpointRepository(database)
        self._keyring = keyring
        self._clock = clock

    async def endpoint(self, caller: Caller) -> EndpointView:
        """The live, intended or manual endpoint; its full path for an admin only. Raises `NotFound`."""
        snapshot = self._keyring.snapshot
        scheme = None if snapshot.scheme is None else str(snapshot.scheme)
        endpoint = None if self._keyring.is_off else current(await self._repository.endpoints())
        if endpoint is None and self._keyring.is_fixed:
            return EndpointView.from_setting(scheme=scheme, now=self._clock.now())
        if endpoint is None:
            raise NotFound("No endpoint is registered yet.")
        secrets = await self._repository.secrets(now=self._clock.now())
        return EndpointView.of(endpoint, secrets, scheme=scheme, shows_path=caller.role.allows(Role.ADMIN))

    async def history(self) -> HistoryView:
        """The newest entries in the history of all our endpoints, newest first."""
        return HistoryView.model_validate({"data": await self._repository.history()})


class Orphans:
    """Lists the endpoints that a lost database left at Rivya, and removes one for an admin.

    Methods raise `ServiceError` if Rivya fails, and `DatabaseUnavailable`.
    """

    def __init__(
        self, client: RivyaClient, repository: EndpointRepository, *, clock: Clock, public_url: str | None
    ) -> None:
        self._client = client
        self._repository = repository
        self._clock = clock
        self._public_url = public_url

    async def find(self) -> Sequence[WebhookEndpoint]:
        """The orphans; none without a public URL, which says what our host is."""
        if self._public_url is None:
            return []
        try:
            listed = await self._client.list_endpoints()
        except RivyaError as error:
            raise _failed(error) from error
        return await find_orphans(self._repository, listed.endpoints, public_url=self._public_url)

    async def remove(self, rivya_id: str) -> WebhookEndpoint:
        """Remove an orphan at Rivya; returns it. Raises `NotFound` for any other endpoint."""
        orphan = next((one for one in await self.find() if one.id == rivya_id), None)
        if orphan is None:
            raise NotFound(f"{rivya_id} is not an endpoint of our name and host that this database lacks.")
        try:
            await self._client.delete_endpoint(rivya_id)
        except RivyaError as error:
            raise _failed(error) from error
        log.warning("endpoint.orphan_removed", rivya_id=rivya_id)
        wanted = live(await self._repository.endpoints())
        if wanted is not None:
            await self._repository.change(wanted, now=self._clock.now(), event="orphan_removed", detail=rivya_id)
        return orphan


def _failed(error: RivyaError) -> ServiceError:
    return ServiceError(explain(read_failure(error).code), status=503, code="rivya_unreachable", retry_after=5)
