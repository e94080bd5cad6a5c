"""/api/v1/endpoint: our registration with Rivya as callers see it, and what an admin may ask of it."""

from datetime import timedelta
from typing import Annotated, Final

from fastapi import APIRouter, Depends

from app.core.access import Access, Caller, Role
from app.core.clock import Clock
from app.core.database import Database
from app.endpoint import history
from app.endpoint.endpoint import current
from app.endpoint.keyring import Keyring
from app.endpoint.operator import EndpointUnknown, Operator
from app.endpoint.registry import Registry
from app.endpoint.views import EndpointView, HistoryView

_PATIENCE: Final = timedelta(seconds=15)


def router(access: Access, database: Database, keyring: Keyring, *, clock: Clock) -> APIRouter:
    """The routes about our endpoint."""
    routes = APIRouter(prefix="/api/v1", tags=["endpoint"])
    registry, operator = Registry(database), Operator(database, clock=clock)

    async def view(caller: Caller) -> EndpointView:
        scheme = None if keyring.known.scheme is None else str(keyring.known.scheme)
        endpoint = current(await registry.endpoints()) if not keyring.is_off else None
        if endpoint is None and keyring.is_fixed:
            return EndpointView.made_by_hand(scheme=scheme, now=clock.now())
        if endpoint is None:
            raise EndpointUnknown("No endpoint is registered yet.")
        secrets = await registry.secrets(now=clock.now())
        return EndpointView.of(endpoint, secrets, scheme=scheme, shows_path=caller.role.allows(Role.ADMIN))

    @routes.get(
        "/endpoint",
        summary="The endpoint that Rivya delivers to",
        responses={404: {"description": "`not_found`: no endpoint is registered yet"}},
    )
    async def get_endpoint(caller: Annotated[Caller, Depends(access.require(Role.READ))]) -> EndpointView:
        """Its state, how deliveries fare at it, what proved its scheme, since when its secrets are valid; no secret."""
        return await view(caller)

    @routes.get("/endpoint/history", summary="What became of our endpoints")
    async def get_history(_: Annotated[Caller, Depends(access.require(Role.ADMIN))]) -> HistoryView:
        """States reached, repairs, rotations and proofs, newest first."""
        return HistoryView.of(await history.newest(database))

    @routes.post("/endpoint/rotate-secret", summary="Replace the signing secret")
    async def rotate_secret(caller: Annotated[Caller, Depends(access.require(Role.ADMIN))]) -> EndpointView:
        """Ask Rivya for a new secret; deliveries signed with the old one are accepted for RECEIVER_SECRET_OVERLAP.

        Answers once the new secret is stored, after 15 s at the latest: `rotation` is `none` then, or still under way.
        """
        await operator.rotated(await operator.request_rotation(), patience=_PATIENCE)
        return await view(caller)

    @routes.post("/endpoint/repin", summary="Find out anew how deliveries are signed")
    async def repin(caller: Annotated[Caller, Depends(access.require(Role.ADMIN))]) -> EndpointView:
        """Forget the pinned signature scheme; the next delivery that a known secret signed proves it anew."""
        await operator.repin()
        await keyring.load()
        return await view(caller)

    return routes
