"""Headers that keep browsers from running, framing or keeping what they shouldn't; added where an answer has none."""

from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

# The documentation page loads Swagger UI from a CDN and starts it by an inline script: FastAPI's own page.
_PAGE_POLICY: Final = (
    "default-src 'none'; script-src 'unsafe-inline' https://cdn.jsdelivr.net; style-src 'unsafe-inline' "
    "https://cdn.jsdelivr.net; img-src data: https://fastapi.tiangolo.com; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
_ALL: Final = ((b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer"))
_PAGES: Final = ((b"content-security-policy", _PAGE_POLICY.encode()), (b"x-frame-options", b"DENY"))
_OTHERS: Final = ((b"cache-control", b"no-store"),)
_DELIVERIES: Final = "/rivya/webhook"

ANSWER_LINES: Final = b"".join(b"%b: %b\r\n" % header for header in (*_ALL, *_OTHERS))
"""What an answer that is no page is given, as lines, for those that don't pass through here."""


class SecurityHeaders:
    """ASGI middleware. Deliveries are answered to no browser and pass untouched."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""

        async def tell(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = _completed(list(message.get("headers", ())))
            await send(message)

        is_for_browsers = scope["type"] == "http" and not scope["path"].startswith(_DELIVERIES)
        await self._app(scope, receive, tell if is_for_browsers else send)


def _completed(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    present = {name.lower(): value for name, value in headers}
    is_page = present.get(b"content-type", b"").startswith(b"text/html")
    wanted = (*_ALL, *(_PAGES if is_page else _OTHERS))
    return [*headers, *((name, value) for name, value in wanted if name not in present)]
