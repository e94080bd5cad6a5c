"""What all pages share: who is signed in, checked forms, templates, navigation, and errors as pages."""

import hashlib
import hmac
import math
import re
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from datetime import timedelta
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

import structlog
from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pydantic import ValidationError

from app.api.errors import explain
from app.api.health import Readiness
from app.console import filters
from app.console.static_files import StaticFiles
from app.core.audit import Audit
from app.core.auth import Access, Caller, Role
from app.core.bodies import ClientDisconnected, Model, read_body
from app.core.clock import Clock
from app.core.errors import RequestInvalid, ServiceError
from app.core.middleware import route_of
from app.core.urls import is_loopback
from app.endpoint.keyring import Keyring
from app.endpoint.reachability import Reachability
from app.endpoint.service import EndpointCommands, EndpointQueries, Orphans
from app.gateway.service import Gateway
from app.intake.rejections import Rejections
from app.ledger.feed import FeedTail
from app.ledger.metrics import Activity
from app.ledger.queries import Queries
from app.notifications.repository import NotificationRepository
from app.notifications.service import Webhooks
from app.operations.commands import GenerationCommands, Replay
from app.operations.replicas import Heartbeat
from app.submission.service import SubmissionService
from app.submission.store import SubmissionRepository
from app.tokens.service import Tokens
from app.tokens.sessions import SessionEnded, Sessions
from app.tokens.spending import Spending

COOKIE: Final = "receiver_session"
_NOTICE: Final = "receiver_notice"
_SECONDS_OF_NOTICE: Final = 30
_ONCE: Final = "receiver_once"
LOGIN: Final = "/console/login"
_OURS: Final = re.compile(r"/console(?:[/?][\x21-\x5b\x5d-\x7e]*)?")
MOST_FORM_BYTES: Final = 64 * 1024
_MOST_FIELDS: Final = 200
_TIME_OF_A_FIELD: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?", re.ASCII)

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class NavigationItem:
    """A line of the navigation, shown to callers whose role allows the page."""

    label: str
    path: str
    icon: str
    role: Role = Role.READ
    is_for_fenced: bool = True
    """Also shown to tokens that see only what is their own."""


NAVIGATION: Final = (
    NavigationItem("Overview", "/console", "overview"),
    NavigationItem("Generations", "/console/generations", "generations"),
    NavigationItem("Deliveries", "/console/deliveries", "deliveries"),
    NavigationItem("Refusals", "/console/refusals", "refusals", Role.ADMIN),
    NavigationItem("Endpoint", "/console/endpoint", "endpoint"),
    NavigationItem("Webhooks", "/console/webhooks", "webhooks", Role.WRITE),
    NavigationItem("Notifications", "/console/notifications", "notifications", Role.WRITE),
    NavigationItem("Usage", "/console/usage", "usage"),
    NavigationItem("Tokens", "/console/tokens", "tokens"),
    NavigationItem("Audit", "/console/audit", "audit", Role.ADMIN),
)


class FormInvalid(RequestInvalid):
    """403: the form did not come from a page of this session."""

    status = 403
    code = "form_invalid"

    def __init__(self) -> None:
        super().__init__("This form did not come from a page of your session. Go back, reload the page, and try again.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Console:
    """What pages are made of, read from and act through: the same parts as the API's routes."""

    access: Access
    sessions: Sessions
    audit: Audit
    files: StaticFiles
    public_url: str | None
    """Its origin is accepted in forms too, for proxies that change `Host`."""
    clock: Clock
    queries: Queries
    activity: Activity
    feed_tail: FeedTail
    readiness: Readiness
    heartbeat: Heartbeat
    commands: GenerationCommands
    replay: Replay
    rejections: Rejections
    submissions: SubmissionService
    submission_repository: SubmissionRepository
    category_of: Callable[[str | None], str | None]
    """The category of a model, None while it is not known."""
    gateway: Gateway
    endpoint_queries: EndpointQueries
    endpoint_commands: EndpointCommands
    reachability: Reachability
    orphans: Orphans
    keyring: Keyring
    secret_overlap: timedelta
    tokens: Tokens
    spending: Spending
    webhooks: Webhooks
    notifications: NotificationRepository

    def require(self, role: Role) -> Callable[[Request], Awaitable[Caller]]:
        """A dependency: the caller who is signed in. Raises `SessionEnded`, `FormInvalid`, `Forbidden`."""

        async def authorize(request: Request) -> Caller:
            session_id = request.cookies.get(COOKIE, "")
            caller = await self.sessions.caller(session_id)
            if request.method not in {"GET", "HEAD"}:
                await self.read_form(request)
            await self.access.authorize(request, caller, role)
            return caller

        return authorize

    async def read_form(self, request: Request) -> dict[str, str]:
        """The fields of a form, also in `request.state.form`. Raises `FormInvalid`, `RequestInvalid`."""
        if not self._is_same_origin(request):
            raise FormInvalid
        body = await read_body(request.scope, request.receive, most_bytes=MOST_FORM_BYTES)
        try:
            fields = dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_MOST_FIELDS))
        except ValueError:
            raise RequestInvalid("body: must be a form in UTF-8.") from None
        session_id = request.cookies.get(COOKIE, "")
        if not session_id or not hmac.compare_digest(csrf_token(session_id).encode(), fields.pop("csrf", "").encode()):
            raise FormInvalid
        request.state.form = fields
        return fields

    def _is_same_origin(self, request: Request) -> bool:
        """Whether the page that sent the form is ours. The scheme is not compared: a proxy may end TLS."""
        origin = _split(request.headers.get("origin", "")).netloc
        hosts = {request.headers.get("host"), urlsplit(self.public_url or "").netloc}
        return bool(origin) and origin in hosts

    def page(self, request: Request, template: str, *, status: int = 200, **values: Any) -> Response:  # noqa: ANN401
        """A page made of a template and its values, of which `title` is needed."""
        caller: Caller | None = getattr(request.state, "caller", None)
        notice = None if _is_of_script(request) else request.cookies.get(_NOTICE)
        html = (
            _environment()
            .get_template(template)
            .render(
                user=caller,
                csrf=csrf_token(request.cookies.get(COOKIE, "")),
                may=lambda role: caller is not None and caller.role.allows(Role(role)),
                navigation=[item for item in NAVIGATION if caller is not None and _is_shown(item, caller)],
                notice=None if notice is None else unquote(notice),
                path=request.url.path,
                query=request.query_params,
                static=self.files.url,
                url_with=partial(_url_with, request),
                version=_version(),
                **values,
            )
        )
        headers = {"Cache-Control": "no-store", "Referrer-Policy": "same-origin"}
        response = Response(html, status_code=status, headers=headers, media_type="text/html; charset=utf-8")
        if notice is not None:
            response.delete_cookie(_NOTICE, path="/console")
        return response

    def redirect(self, request: Request, url: str, *, notice: str | None = None) -> Response:
        """An answer that leads to a page of ours, which shows the notice once."""
        response = Response(status_code=303, headers={"Location": url, "Cache-Control": "no-store"})
        if notice is not None:
            self.set_cookie(request, response, _NOTICE, quote(notice), seconds=_SECONDS_OF_NOTICE)
        return response

    def redirect_to_secret(self, request: Request, url: str, secret: str) -> Response:
        """An answer that leads to the page of ours which shows this secret, by `secret_page`.

        The browser alone brings the secret there, in a cookie for this page that is taken away as it is shown.
        """
        response = self.redirect(request, url)
        self.set_cookie(request, response, _ONCE, secret, seconds=_SECONDS_OF_NOTICE, path=url)
        return response

    def secret_page(self, request: Request, *, title: str, name: str, back: str) -> Response:
        """The page that shows a secret; when it is asked for again it leads back."""
        secret = request.cookies.get(_ONCE)
        if secret is None:
            return self.redirect(request, back, notice="A secret is shown once. Rotate replaces it.")
        response = self.page(request, "secret.html", title=title, name=name, secret=secret, back=back)
        response.delete_cookie(_ONCE, path=request.url.path)
        return response

    def set_cookie(
        self,
        request: Request,
        response: Response,
        name: str,
        value: str,
        *,
        seconds: int | None = None,
        path: str = "/console",
    ) -> None:
        """Set a cookie that no script reads and that other sites' forms do not send."""
        is_secure = not is_loopback(request.url.hostname or "")
        response.set_cookie(name, value, max_age=seconds, path=path, secure=is_secure, httponly=True, samesite="lax")

    def error_page(self, request: Request, error: ServiceError) -> Response:
        """The error as a page, with a way back."""
        if error.status > 500:
            log.warning("page.not_served", code=error.code)
        referrer = _split(request.headers.get("referer", ""))
        back = checked_next(f"{referrer.path}?{referrer.query}" if referrer.query else referrer.path)
        title = {403: "Not allowed", 404: "Not found"}.get(error.status, "Not done")
        response = self.page(request, "error.html", status=error.status, title=title, error=error, back=back)
        if error.retry_after is not None:
            response.headers["Retry-After"] = str(math.ceil(error.retry_after))
        return response

    def router(self) -> APIRouter:
        """A router for pages: errors become pages, and whoever is not signed in is led to the sign-in."""
        console = self

        class PageRoute(APIRoute):
            def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
                handler = super().get_route_handler()

                async def respond(request: Request) -> Response:
                    try:
                        return await handler(request)
                    except ClientDisconnected:
                        raise
                    except SessionEnded as error:
                        if _is_of_script(request):
                            raise
                        notice = error.message if COOKIE in request.cookies else None
                        return console.redirect(request, login_url(request), notice=notice)
                    except Exception as error:  # noqa: BLE001 - the web boundary; it is logged
                        return console.error_page(request, _described(request, error))

                return respond

        return APIRouter(prefix="/console", route_class=PageRoute, include_in_schema=False)


def _split(url: str) -> SplitResult:
    """The parts of a URL from a header; empty ones if it is none."""
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")


def _is_of_script(request: Request) -> bool:
    """Whether the script of a page asks for it, by a stream or to read the page anew: its answer is shown as no page.

    So it takes no notice away from the page that follows a form, and is not led to the sign-in.
    """
    headers = request.headers
    return headers.get("sec-fetch-dest") == "empty" or "text/event-stream" in headers.get("accept", "")


def _described(request: Request, error: Exception) -> ServiceError:
    """What a person is told of it; of an unexpected error only where it is logged, which happens here."""
    if isinstance(error, ServiceError):
        return error
    if isinstance(error, RequestValidationError):
        return RequestInvalid(explain(error.errors()))
    log.error("request.failed", error=type(error).__name__, route=route_of(request.scope), exc_info=error)
    return ServiceError(f"Something went wrong here; it has been logged, as {request.state.request_id}.")


def _is_shown(item: NavigationItem, caller: Caller) -> bool:
    return caller.role.allows(item.role) and (item.is_for_fenced or not caller.role.is_fenced)


def _url_with(request: Request, **changes: object) -> str:
    """The path of this request with other parameters in its query; None removes one."""
    pairs = [(name, value) for name, value in request.query_params.multi_items() if name not in changes]
    pairs += [(name, str(value)) for name, value in changes.items() if value is not None]
    return f"{request.url.path}?{urlencode(pairs)}" if pairs else request.url.path


def csrf_token(session_id: str) -> str:
    """What the forms of this session contain; tells nothing about the session's id."""
    return hmac.new(session_id.encode(), b"csrf", hashlib.sha256).hexdigest()


def checked_next(path: str) -> str:
    """`path` if it leads to a page of the console, else the overview: a link to the sign-in leads nowhere else."""
    return path if _OURS.fullmatch(path) and not path.startswith(LOGIN) else "/console"


def login_url(request: Request) -> str:
    """The sign-in, after which the requested page is shown."""
    wanted = request.url.path if request.method == "GET" else "/console"
    wanted = f"{wanted}?{request.url.query}" if request.url.query and request.method == "GET" else wanted
    return LOGIN if wanted == "/console" else f"{LOGIN}?next={quote(wanted)}"


def parse_query(request: Request, model: type[Model], **ours: str) -> Model:
    """The query as parameters of the API. Empty fields count as left out; times of a form's field are in UTC.

    `ours`: parameters of the page itself, that the model does not know, with their defaults; they are left out.

    Raises `RequestValidationError`.
    """
    given = {
        name: _with_zone(value) for name, value in request.query_params.items() if value.strip() and name not in ours
    }
    return validated(model, given, place="query")


def validated(model: type[Model], given: dict[str, Any], *, place: str = "body") -> Model:
    """`given` as a model of the API. Raises `RequestValidationError`, which names what is wrong."""
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise RequestValidationError([{**each, "loc": (place, *each["loc"])} for each in error.errors()]) from None


def _with_zone(value: str) -> str:
    """A time as a browser's field for times writes it, with seconds and an offset; anything else unchanged."""
    match = _TIME_OF_A_FIELD.fullmatch(value)
    if match is None:
        return value
    return f"{value}Z" if match[1] else f"{value}:00Z"


@cache
def _version() -> str:
    return version("rivya-receiver")


@cache
def _environment() -> Environment:
    folder = Path(__file__).parent / "templates"
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters.update(filters.FILTERS)
    return environment
