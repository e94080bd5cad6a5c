"""Endpoints that a lost database left at Rivya: they have our name and host, and this database lacks them."""

from collections.abc import Iterable, Sequence

import structlog

from app.core.clock import Clock
from app.core.errors import HealthCheck, ServiceError
from app.endpoint.errors import explain, read_failure
from app.endpoint.models import NAME, is_same_host, live, path_key_of
from app.endpoint.repository import EndpointRepository
from app.endpoint.service import EndpointUnknown
from app.rivya.client import RivyaClient
from app.rivya.endpoint_payload import WebhookEndpoint
from app.rivya.errors import RivyaError

log = structlog.stdlib.get_logger(__name__)

ADVICE = "`rivya-receiver endpoint orphans` lists them, and `rivya-receiver endpoint orphans remove ID` removes one"


async def find_orphans(
    repository: EndpointRepository, listed: Iterable[WebhookEndpoint], *, public_url: str
) -> list[WebhookEndpoint]:
    """Those of `listed` with our name and host that the database does not know. Raises `DatabaseUnavailable`."""
    ours = [one for one in listed if one.name == NAME and one.revoked_at is None and is_same_host(one.url, public_url)]
    keys = await repository.path_keys_among({path_key_of(one.url) or "" for one in ours})
    ids = await repository.rivya_ids_among({one.id for one in ours})
    return [one for one in ours if path_key_of(one.url) not in keys and one.id not in ids]


def describe(orphans: Sequence[WebhookEndpoint]) -> HealthCheck:
    """The check for `/readyz` and `check`; not required, since deliveries to our own endpoint are recorded."""
    detail = "none at Rivya"
    if orphans:
        ids = ", ".join(one.id for one in orphans)
        detail = f"Rivya also delivers to {ids}, of our name and host but not of this database; {ADVICE}"
    remedy = f"Rivya also delivers to endpoints of a lost database; {ADVICE}"
    return HealthCheck("endpoint_orphans", ok=not orphans, detail=detail, is_required=False, remedy=remedy)


class Orphans:
    """Lists the orphans and removes one for an operator.

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
        """Remove an orphan at Rivya; returns it. Raises `EndpointUnknown` for any other endpoint."""
        orphan = next((one for one in await self.find() if one.id == rivya_id), None)
        if orphan is None:
            raise EndpointUnknown(f"{rivya_id} is not an endpoint of our name and host that this database lacks.")
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
