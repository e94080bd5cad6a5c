"""Our endpoint at Rivya: its state, what proves its signatures, its history, and what an admin can do about it."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from fastapi import APIRouter, Depends, Request, Response

from app.console.pages import Console
from app.core.auth import Caller, Role
from app.core.errors import HealthCheck, NotFound, RequestInvalid
from app.endpoint.schemas import EndpointView, OrphanView

_PAGE: Final = "/console/endpoint"
_PATIENCE: Final = timedelta(seconds=15)


@dataclass(frozen=True, slots=True)
class EndpointPages:
    """The handlers of the pages."""

    console: Console

    def router(self) -> APIRouter:
        """The routes."""
        routes, require = self.console.router(), self.console.require
        acts = [Depends(require(Role.ADMIN))]
        routes.get("/endpoint", dependencies=[Depends(require(Role.READ))])(self.show_endpoint)
        routes.post("/endpoint/rotate", dependencies=acts)(self.rotate)
        routes.post("/endpoint/repin", dependencies=acts)(self.repin)
        routes.post("/endpoint/test", dependencies=acts)(self.test_delivery)
        routes.post("/endpoint/reachability", dependencies=acts)(self.check_reachability)
        routes.get("/endpoint/orphans", dependencies=acts)(self.list_orphans)
        routes.post("/endpoint/orphans/{rivya_id:path}/remove", dependencies=acts)(self.remove_orphan)
        return routes

    async def show_endpoint(self, request: Request) -> Response:
        """What the receiver has registered; its history for an admin."""
        caller: Caller = request.state.caller
        endpoint: EndpointView | None = None
        with suppress(NotFound):
            endpoint = await self.console.endpoint_queries.endpoint(caller)
        history = (await self.console.endpoint_queries.history()).data if caller.role.allows(Role.ADMIN) else None
        return self.console.page(
            request,
            "endpoint.html",
            title="Endpoint",
            endpoint=endpoint,
            history=history,
            secret_overlap=self.console.secret_overlap.total_seconds(),
            now=self.console.clock.now(),
        )

    async def rotate(self, request: Request) -> Response:
        """Replace the signing secret."""
        wanted = await self.console.endpoint_commands.request_rotation()
        is_done = await self.console.endpoint_commands.rotated(wanted, patience=_PATIENCE)
        later = "A new secret was requested; it is stored as soon as it comes."
        return self.console.redirect(request, _PAGE, notice="A new secret is in use." if is_done else later)

    async def repin(self, request: Request) -> Response:
        """Find out anew how deliveries are signed."""
        await self.console.endpoint_commands.repin()
        await self.console.keyring.load()
        return self.console.redirect(request, _PAGE, notice="The next delivery proves the scheme anew.")

    async def test_delivery(self, request: Request) -> Response:
        """Have Rivya send a test delivery."""
        return self._checked(request, "Test delivery", [await self.console.reachability.test_delivery()])

    async def check_reachability(self, request: Request) -> Response:
        """Probe the way from Rivya to us; takes up to a minute."""
        return self._checked(request, "Reachability", await self.console.reachability.check_all())

    def _checked(self, request: Request, title: str, checks: Sequence[HealthCheck]) -> Response:
        return self.console.page(request, "checks.html", title=title, checks=checks, back=_PAGE)

    async def list_orphans(self, request: Request) -> Response:
        """Endpoints that a lost database left at Rivya: a part of the page, loaded later, since Rivya is asked."""
        rows = [OrphanView.of(orphan) for orphan in await self.console.orphans.find()]
        return self.console.page(request, "orphans.html", title="Orphans", orphans=rows)

    async def remove_orphan(self, request: Request, rivya_id: str) -> Response:
        """Remove one at Rivya, confirmed by its id."""
        if request.state.form.get("confirm") != rivya_id:
            raise RequestInvalid("confirm: must be the id of the endpoint, typed as it is shown.")
        await self.console.orphans.remove(rivya_id)
        return self.console.redirect(request, _PAGE, notice=f"Removed at Rivya: {rivya_id}")
