"""The sandbox as an ASGI application."""

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from app.sandbox.admin import admin_routes
from app.sandbox.responses import RivyaError
from app.sandbox.routes import OPERATIONS
from app.sandbox.state import Sandbox


def create_sandbox_app(sandbox: Sandbox) -> Starlette:
    """Rivya's public API and the routes under `/sandbox`, for this sandbox, which the caller closes."""
    routes = [operation.route(sandbox) for operation in OPERATIONS]
    handlers = {HTTPException: _respond, RivyaError: _respond}
    return Starlette(routes=[*routes, *admin_routes(sandbox)], exception_handlers=handlers)


async def _respond(_: Request, error: Exception) -> Response:
    match error:
        case RivyaError():
            return error.response()
        case HTTPException():
            return RivyaError("not_found", "There is no such route.", status=error.status_code).response()
    raise error
