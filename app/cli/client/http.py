"""A client of a receiver, and so of Rivya: the same paths, another base URL and token."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, nullcontext
from types import MappingProxyType
from typing import Any, BinaryIO, NoReturn
from urllib.parse import quote
from uuid import uuid4

import httpx
import typer
import uvloop
from httpx_sse import EventSource, ServerSentEvent, SSEError

from app.cli.client.output import fail, plain, print_json, shown_wait
from app.core.proxies import ProxyInvalid, proxy_for
from app.core.records import dump_json, json_object
from app.core.setting_sources import SettingsInvalid, clean, read_variables
from app.core.settings import is_plain
from app.core.urls import checked_public_url

_TIMEOUT = httpx.Timeout(15, read=300)
"""Seconds. A chat turn is answered when it is complete, which may take minutes."""

_DEFAULT_URL = "http://127.0.0.1:8000"


def load_target() -> tuple[str, str]:
    """RECEIVER_URL and RECEIVER_TOKEN from the environment or `.env`. Raises `SettingsInvalid`."""
    given = clean(read_variables())
    url, token = given.get("receiver_url", _DEFAULT_URL), given.get("receiver_token")
    if token is None:
        message = "RECEIVER_TOKEN: is not set; it is the token of an entry (name:role:token) of RECEIVER_API_TOKENS"
        raise SettingsInvalid(message)
    if not is_plain(token):
        raise SettingsInvalid("RECEIVER_TOKEN: must be plain ASCII without blanks")
    try:
        return checked_public_url(url, may_be_local=True), token
    except ValueError as error:
        raise SettingsInvalid(f"RECEIVER_URL: {error}, such as https://receiver.example.com") from None


def has_token() -> bool:
    """Whether RECEIVER_TOKEN is set, in the environment or in `.env`."""
    try:
        return clean(read_variables()).get("receiver_token") is not None
    except SettingsInvalid:
        return False  # the command reports it


class CallFailed(Exception):
    """The call did not succeed. `document` is the error in Rivya's shape: the response's, or made here without one."""

    def __init__(self, message: str, document: dict[str, Any]) -> None:
        super().__init__(message)
        self.document = document
        self.status: int | None = None
        """The HTTP status; None without a response."""
        self.retry_after: float | None = None
        """Seconds that the receiver asked to wait."""

    @property
    def may_pass(self) -> bool:
        """Whether a later attempt may succeed."""
        return self.status is None or self.status == 429 or self.status >= 500


def local_failure(code: str, message: str) -> CallFailed:
    """A failure without an error of the receiver."""
    return CallFailed(message, {"error": {"code": code, "message": message, "requestId": None}})


def response_failure(status: int, body: bytes, *, retry_after: str | None) -> CallFailed:
    """The failure of a response whose status is not 2xx."""
    document = json_object(body) or {}
    error = document.get("error")
    if isinstance(error, dict) and isinstance(error.get("code"), str):
        summary = f"{error['code']}: {error.get('message') or 'no message'}"
        failure = CallFailed(f"{summary} (HTTP {status}, request {error.get('requestId')})", {"error": error})
    else:
        failure = local_failure("unexpected_answer", f"HTTP {status}, without an error message")
    failure.status = status
    failure.retry_after = float(retry_after) if retry_after is not None and retry_after.isdecimal() else None
    return failure


class Receiver:
    """Calls a receiver once, without retries, at the segments `path` below /api/v1. Methods raise `CallFailed`."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def get(self, *path: str, **parameters: str | int | None) -> dict[str, Any]:
        """The object at `path`; parameters that are None are left out."""
        return await self._send(self._request("GET", path, parameters))

    async def delete(self, *path: str, **parameters: str | None) -> dict[str, Any]:
        """The response to a DELETE."""
        return await self._send(self._request("DELETE", path, parameters))

    async def post(self, *path: str, body: Mapping[str, Any] | None = None, key: str | None = None) -> dict[str, Any]:
        """The response to a POST with the Idempotency-Key `key`, or a new one."""
        return await self._send(self._request("POST", path, body=body or {}, key=key))

    async def patch(self, *path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The object at `path`, with these members changed."""
        return await self._send(self._request("PATCH", path, body=body))

    async def upload(self, file: BinaryIO, name: str, media_type: str, *, fields: dict[str, str]) -> dict[str, Any]:
        """Upload `file` as a form; the object that describes it."""
        form = {"file": (name, file, media_type)}
        return await self._send(self._client.build_request("POST", "/api/v1/files", data=fields, files=form))

    async def stream(self, *path: str, body: Mapping[str, Any]) -> AsyncIterator[ServerSentEvent]:
        """The events of the response to a POST, as they arrive. Events with neither name nor data are left out."""
        with _call_errors():
            response = await self._client.send(self._request("POST", path, body=body), stream=True)
            try:
                if not response.is_success:
                    await response.aread()
                _raise_for_status(response)
                async for event in EventSource(response).aiter_sse():
                    if event.data or event.event != "message":
                        yield event
            finally:
                await response.aclose()

    def _request(
        self,
        method: str,
        path: Sequence[str],
        parameters: Mapping[str, str | int | None] = MappingProxyType({}),
        *,
        body: Mapping[str, Any] | None = None,
        key: str | None = None,
    ) -> httpx.Request:
        url = "/".join(["/api/v1", *(quote(segment, safe="") for segment in path)])
        params = {name: value for name, value in parameters.items() if value is not None}
        headers = {} if body is None else {"Content-Type": "application/json"}
        if method == "POST":
            headers["Idempotency-Key"] = key or str(uuid4())
        content = None if body is None else dump_json(body)
        return self._client.build_request(method, url, params=params, content=content, headers=headers)

    async def _send(self, request: httpx.Request) -> dict[str, Any]:
        # Long polls show their progress themselves.
        text = f"for the answer of {request.url.host} to {request.method} {request.url.path}"
        with _call_errors(), nullcontext() if "wait" in request.url.params else shown_wait(text):
            response = await self._client.send(request)
        _raise_for_status(response)
        if (document := json_object(response.content)) is None:
            raise local_failure("unexpected_answer", f"HTTP {response.status_code}, and the answer is no JSON object")
        return document


@asynccontextmanager
async def calling(url: str, token: str) -> AsyncIterator[Receiver]:
    """A client of the receiver at `url`. Raises `CallFailed` for a proxy in the environment that can't be used."""
    try:
        proxy = proxy_for(url)
    except ProxyInvalid as error:
        raise local_failure("proxy_invalid", str(error)) from None
    async with httpx.AsyncClient(
        base_url=url,
        headers={"Authorization": f"Bearer {token}"},
        timeout=_TIMEOUT,
        proxy=proxy,
        trust_env=False,
        verify=httpx.create_ssl_context(),  # this reads SSL_CERT_FILE
    ) as client:
        yield Receiver(client)


def call(act: Callable[[Receiver], Awaitable[bool]], *, as_json: bool) -> NoReturn:
    """Run `act` with a client of the receiver in the environment, and exit.

    0: `act` returned True, 1: it returned False or raised `CallFailed`, 2: invalid variables, 130: interrupted.
    """

    async def run(url: str, token: str) -> bool:
        async with calling(url, token) as receiver:
            return await act(receiver)

    try:
        is_done = uvloop.run(run(*load_target()))
    except SettingsInvalid as error:
        fail(str(error), status=2)
    except CallFailed as failure:
        if as_json:
            print_json(failure.document)
        fail(f"failed: {plain(str(failure))}")
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    raise typer.Exit(0 if is_done else 1)


@contextmanager
def _call_errors() -> Iterator[None]:
    try:
        yield
    except httpx.ConnectError as error:
        url = str(error.request.url.copy_with(raw_path=b"/")).rstrip("/")
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise local_failure("tls_failed", f"the certificate of RECEIVER_URL, {url}, is not trusted") from None
        if "[SSL" in str(error):
            raise local_failure("tls_failed", f"{url} speaks no TLS: is RECEIVER_URL http:// instead?") from None
        raise local_failure("receiver_unreachable", f"nobody answers at RECEIVER_URL, {url}") from None
    except SSEError as error:
        raise local_failure("unexpected_answer", str(error)) from None
    except httpx.HTTPError as error:
        raise local_failure("no_answer", f"the answer did not come, or not whole ({type(error).__name__})") from None


def _raise_for_status(response: httpx.Response) -> None:
    if not response.is_success:
        retry_after = response.headers.get("retry-after")
        raise response_failure(response.status_code, response.content, retry_after=retry_after)
