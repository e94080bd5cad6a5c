"""The sandbox as an ASGI application."""

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from app.sandbox.admin import admin_routes
from app.sandbox.responses import RivyaError, refusal
from app.sandbox.routes import CHAT, FILES, GENERATIONS, WEBHOOKS
from app.sandbox.state import Sandbox


def create_sandbox_app(sandbox: Sandbox) -> Starlette:
    """Rivya's public API over this sandbox, and the routes to control it; the caller closes the sandbox."""
    operations = [
        *GENERATIONS,
        *FILES,
        *CHAT,
        *WEBHOOKS,
    ]
    routes = [operation.route(sandbox) for operation in operations]
    handlers = {HTTPException: _no_such_route, RivyaError: _refused}
    return Starlette(routes=[*routes, *admin_routes(sandbox)], exception_handlers=handlers)


async def _no_such_route(_: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    return refusal("not_found", "There is no such route.", status=status)


async def _refused(_: Request, error: Exception) -> Response:
    if not isinstance(error, RivyaError):
        raise error
    return refusal(error.code, error.message, status=error.status)
