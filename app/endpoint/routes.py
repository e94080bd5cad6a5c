"""The routes under /api/v1/endpoint: our registration with Rivya, its history, and the actions of an admin."""

from datetime import timedelta
from typing import Annotated, Final

from fastapi import APIRouter, Depends

from app.core.auth import Access, Caller, Role
from app.endpoint.keyring import Keyring
from app.endpoint.reachability import Reachability
from app.endpoint.schemas import EndpointView, HistoryView, OrphansView, OrphanView, ReachabilityView
from app.endpoint.service import EndpointCommands, EndpointQueries, Orphans


def router(access: Access, queries: EndpointQueries) -> APIRouter:
    """The routes that read."""
    routes = APIRouter(prefix="/api/v1", tags=["endpoint"])

    @routes.get(
        "/endpoint",
        summary="The endpoint that Rivya delivers to",
        responses={404: {"description": "`not_found`: no endpoint is registered yet"}},
    )
    async def get_endpoint(caller: Annotated[Caller, Depends(access.require(Role.READ))]) -> EndpointView:
        """Its state, the health of its deliveries, what proved its scheme, when its secrets are valid; no secret."""
        return await queries.endpoint(caller)

    @routes.get("/endpoint/history", summary="What became of our endpoints")
    async def get_history(_: Annotated[Caller, Depends(access.require(Role.ADMIN))]) -> HistoryView:
        """States reached, repairs, rotations and proofs, newest first."""
        return await queries.history()

    return routes


_PATIENCE: Final = timedelta(seconds=15)


def admin_router(
    access: Access,
    commands: EndpointCommands,
    reachability: Reachability,
    queries: EndpointQueries,
    keyring: Keyring,
    orphans: Orphans,
) -> APIRouter:
    """The routes for an admin: they change or test the registration, or remove what a lost database left at Rivya."""
    routes = APIRouter(prefix="/api/v1", tags=["endpoint"])

    @routes.post("/endpoint/rotate-secret", summary="Replace the signing secret")
    async def rotate_secret(caller: Annotated[Caller, Depends(access.require(Role.ADMIN))]) -> EndpointView:
        """Request a new secret from Rivya; deliveries signed with the old one are accepted for RECEIVER_SECRET_OVERLAP.

        Answers when the new secret is stored, after 15 s at the latest; `rotation` is `none` if it is done.
        """
        await commands.rotated(await commands.request_rotation(), patience=_PATIENCE)
        return await queries.endpoint(caller)

    @routes.post("/endpoint/repin", summary="Find out anew how deliveries are signed")
    async def repin(caller: Annotated[Caller, Depends(access.require(Role.ADMIN))]) -> EndpointView:
        """Remove the pinned signature scheme; the next delivery that a known secret signed proves it again."""
        await commands.repin()
        await keyring.load()
        return await queries.endpoint(caller)

    @routes.post("/endpoint/test", summary="Can Rivya reach us?")
    async def test(_: Annotated[Caller, Depends(access.require(Role.ADMIN))]) -> ReachabilityView:
        """Probe our own public URL and have Rivya send a test delivery; takes up to a minute.

        Reports redirects, changed bodies and headers, TLS errors, clock offset and time taken, each with a remedy.
        """
        checks = await reachability.check_all()
        return ReachabilityView.model_validate({"ok": all(check.ok for check in checks), "checks": checks})

    @routes.get("/endpoint/orphans", summary="Endpoints left at Rivya")
    async def list_orphans(_: Annotated[Caller, Depends(access.require(Role.ADMIN))]) -> OrphansView:
        """Endpoints at Rivya with our name and host that this database does not know; asks Rivya."""
        return OrphansView(data=[OrphanView.of(orphan) for orphan in await orphans.find()])

    @routes.delete("/endpoint/orphans/{rivya_id:path}", summary="Remove an endpoint left at Rivya")
    async def remove_orphan(rivya_id: str, _: Annotated[Caller, Depends(access.require(Role.ADMIN))]) -> OrphanView:
        """Remove one of these at Rivya; any other endpoint is answered 404."""
        return OrphanView.of(await orphans.remove(rivya_id))

    return routes
