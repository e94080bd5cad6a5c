"""GET /api/v1/endpoint: our registration with Rivya as callers see it."""

from typing import Annotated

from fastapi import APIRouter, Depends

from app.core.access import Access, Caller, Role
from app.core.clock import Clock
from app.core.database import Database
from app.core.errors import ServiceError
from app.endpoint.acts import current
from app.endpoint.keyring import Keyring
from app.endpoint.registry import Registry
from app.endpoint.views import EndpointView


class EndpointUnknown(ServiceError):
    """No endpoint is registered, and none is being registered."""

    status = 404
    code = "not_found"


def router(access: Access, database: Database, keyring: Keyring, *, clock: Clock) -> APIRouter:
    """The routes about our endpoint."""
    routes = APIRouter(prefix="/api/v1", tags=["endpoint"])
    registry = Registry(database)

    @routes.get(
        "/endpoint",
        summary="The endpoint that Rivya delivers to",
        responses={404: {"description": "`not_found`: no endpoint is registered yet"}},
    )
    async def get_endpoint(caller: Annotated[Caller, Depends(access.require(Role.READ))]) -> EndpointView:
        """Its state, how deliveries fare at it, and since when its secrets are valid; never a secret."""
        scheme = str(keyring.verifier.scheme)
        if keyring.is_fixed:
            return EndpointView.made_by_hand(scheme=scheme)
        endpoint = current(await registry.endpoints())
        if endpoint is None:
            raise EndpointUnknown("No endpoint is registered yet.")
        secrets = await registry.secrets(now=clock.now())
        return EndpointView.of(endpoint, secrets, scheme=scheme, shows_path=caller.role.allows(Role.ADMIN))

    return routes
