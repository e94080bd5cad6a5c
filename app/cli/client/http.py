"""A client of a receiver, and so of Rivya: the same paths, another base URL and token."""

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any, BinaryIO, NoReturn
from urllib.parse import quote
from uuid import uuid4

import httpx
import orjson
import typer
import uvloop
from httpx_sse import EventSource, ServerSentEvent, SSEError
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.cli.client.output import plain
from app.core.proxies import ProxyInvalid, proxy_for
from app.core.settings import is_plain
from app.core.urls import checked_public_url

# Which receiver is called and with which token: RECEIVER_URL and RECEIVER_TOKEN, from the environment or `.env`.


_DEFAULT_URL = "http://127.0.0.1:8000"


class TargetInvalid(Exception):
    """A variable is missing or wrong; the text names it and says what would be right."""


@dataclass(frozen=True, slots=True)
class Target:
    """A receiver, or anything else that speaks Rivya's API."""

    url: str
    token: str = field(repr=False)


class _Given(BaseSettings):
    model_config = SettingsConfigDict(env_file=".env", env_ignore_empty=True, extra="ignore", hide_input_in_errors=True)

    receiver_url: str = _DEFAULT_URL
    receiver_token: str | None = None


def load_target() -> Target:
    """Read both variables. Raises `TargetInvalid`."""
    try:
        given = _Given()
    except UnicodeDecodeError:
        raise TargetInvalid(".env: is not UTF-8 text; save it as such") from None
    if given.receiver_token is None:
        message = "RECEIVER_TOKEN: is not set; it is the token of an entry (name:role:token) of RECEIVER_API_TOKENS"
        raise TargetInvalid(message)
    if not is_plain(given.receiver_token):
        raise TargetInvalid("RECEIVER_TOKEN: must be plain ASCII without blanks")
    try:
        url = checked_public_url(given.receiver_url, may_be_local=True)
    except ValueError as error:
        raise TargetInvalid(f"RECEIVER_URL: {error}, such as https://receiver.example.com") from None
    return Target(url, given.receiver_token)


# How a call fails, in the words that a person and a program are told.


class CallFailed(Exception):
    """No success; `document` is the error in Rivya's shape, as it came or made here where nothing came."""

    def __init__(self, message: str, document: dict[str, Any], *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.document = document
        self.retry_after = retry_after
        """Seconds that the receiver asked to wait."""
        self.status: int | None = None
        """The HTTP status; None where no answer came."""

    @property
    def may_pass(self) -> bool:
        """It is worth asking again: nobody answered, or not now."""
        return self.status is None or self.status == 429 or self.status >= 500


def unanswered(code: str, message: str) -> CallFailed:
    """A failure for which there is no answer to show."""
    return CallFailed(message, {"error": {"code": code, "message": message, "requestId": None}})


def refused(status: int, body: bytes, *, retry_after: str | None) -> CallFailed:
    """What an answer other than 2xx says."""
    error = _error_of(body)
    if error is None:
        failure = unanswered("unexpected_answer", f"HTTP {status}, and not a word why")
    else:
        summary = f"{error['code']}: {error.get('message') or 'no message'}"
        request_id = error.get("requestId")
        failure = CallFailed(f"{summary} (HTTP {status}, request {request_id})", {"error": error})
    failure.status = status
    failure.retry_after = float(retry_after) if retry_after is not None and retry_after.isdecimal() else None
    return failure


def _error_of(body: bytes) -> dict[str, Any] | None:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    error = document.get("error") if isinstance(document, dict) else None
    return error if isinstance(error, dict) and isinstance(error.get("code"), str) else None


_SECONDS = httpx.Timeout(15, read=300)
"""Reading may take long: a chat turn is answered when it is done."""


class Receiver:
    """Every method raises `CallFailed` for everything that is no success, and retries nothing."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def get(self, path: str, **parameters: str | int | None) -> dict[str, Any]:
        """The object at a path below /api/v1; parameters that are None are left out."""
        chosen = {name: value for name, value in parameters.items() if value is not None}
        return await self._asked(self._client.build_request("GET", f"/api/v1{path}", params=chosen))

    async def post(self, path: str, body: Mapping[str, Any], *, key: str) -> dict[str, Any]:
        """What a POST with an Idempotency-Key is answered."""
        return await self._asked(self._posting(path, body, key=key))

    async def upload(self, file: BinaryIO, name: str, media_type: str, *, fields: dict[str, str]) -> dict[str, Any]:
        """The object of a file that is sent as a form, read as it is sent."""
        form = {"file": (name, file, media_type)}
        return await self._asked(self._client.build_request("POST", "/api/v1/files", data=fields, files=form))

    async def stream(self, path: str, body: Mapping[str, Any], *, key: str) -> AsyncIterator[ServerSentEvent]:
        """The events that a POST is answered with, as they come; one with neither name nor data is none."""
        with _explained():
            response = await self._client.send(self._posting(path, body, key=key), stream=True)
            try:
                if not response.is_success:
                    await response.aread()
                    raise _refusal(response)
                async for event in EventSource(response).aiter_sse():
                    if event.data or event.event != "message":
                        yield event
            finally:
                await response.aclose()

    def _posting(self, path: str, body: Mapping[str, Any], *, key: str) -> httpx.Request:
        headers = {"Content-Type": "application/json", "Idempotency-Key": key}
        return self._client.build_request("POST", f"/api/v1{path}", content=orjson.dumps(body), headers=headers)

    async def _asked(self, request: httpx.Request) -> dict[str, Any]:
        with _explained():
            response = await self._client.send(request)
        if not response.is_success:
            raise _refusal(response)
        try:
            document = orjson.loads(response.content)
        except orjson.JSONDecodeError:
            document = None
        if not isinstance(document, dict):
            raise unanswered("unexpected_answer", f"HTTP {response.status_code}, and the answer is no JSON object")
        return document


@asynccontextmanager
async def calling(target: Target) -> AsyncIterator[Receiver]:
    """A client of `target`. Raises `CallFailed` for a proxy of the environment that can't be used."""
    headers = {"Authorization": f"Bearer {target.token}"}
    try:
        proxy = proxy_for(target.url)
    except ProxyInvalid as error:
        raise unanswered("proxy_invalid", str(error)) from None
    async with httpx.AsyncClient(
        base_url=target.url,
        headers=headers,
        timeout=_SECONDS,
        proxy=proxy,
        trust_env=False,
        verify=httpx.create_ssl_context(),  # which heeds SSL_CERT_FILE
    ) as client:
        yield Receiver(client)


def segment(identity: str) -> str:
    """An id as one segment of a path."""
    return quote(identity, safe="")


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except httpx.ConnectError as error:
        raise unanswered("receiver_unreachable", f"nobody answers at RECEIVER_URL, {_asked_at(error)}") from None
    except SSEError as error:
        raise unanswered("unexpected_answer", str(error)) from None
    except httpx.HTTPError as error:
        raise unanswered("no_answer", f"the answer did not come, or not whole ({type(error).__name__})") from None


def _asked_at(error: httpx.ConnectError) -> str:
    return str(error.request.url.copy_with(raw_path=b"/")).rstrip("/")


def _refusal(response: httpx.Response) -> CallFailed:
    return refused(response.status_code, response.content, retry_after=response.headers.get("retry-after"))


# Runs one call from the command line: finds the receiver, calls, and turns what became of it into an exit status.


SUCCEEDED, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Act = Callable[[Receiver], Awaitable[int]]
"""Calls, prints, and returns the exit status. May raise `CallFailed`."""


def run(act: Act, *, as_json: bool) -> NoReturn:
    """Call, and exit: 0 succeeded, 1 failed, 2 the command or its variables make no sense."""
    try:
        target = load_target()
    except TargetInvalid as error:
        typer.echo(str(error), err=True)
        sys.exit(USAGE)
    try:
        status = uvloop.run(_call(act, target))
    except CallFailed as failure:
        typer.echo(f"failed: {plain(str(failure))}", err=True)
        if as_json:
            say_json(failure.document)
        status = FAILED
    except KeyboardInterrupt:
        status = INTERRUPTED
    sys.exit(status)


def say(document: Mapping[str, Any], show: Callable[[Mapping[str, Any]], str], *, as_json: bool) -> None:
    """Print an answer: as JSON, or as `show` writes it for people."""
    if as_json:
        say_json(document)
    else:
        typer.echo(show(document))


def say_json(document: object) -> None:
    """Print JSON in one line."""
    typer.echo(orjson.dumps(document).decode())


def new_key() -> str:
    """An Idempotency-Key."""
    return str(uuid4())


async def _call(act: Act, target: Target) -> int:
    async with calling(target) as receiver:
        return await act(receiver)
