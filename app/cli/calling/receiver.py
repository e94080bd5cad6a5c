"""A client of a receiver, and so of Rivya: the same paths, another base URL and token."""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, BinaryIO
from urllib.parse import quote

import httpx
import orjson

from app.cli.calling.failures import CallFailed, refused, unanswered
from app.cli.calling.target import Target
from app.core.proxies import ProxyInvalid, proxy_for

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

    async def stream(self, path: str, body: Mapping[str, Any], *, key: str) -> AsyncIterator[bytes]:
        """The bytes that a POST is answered with, as they come."""
        with _explained():
            response = await self._client.send(self._posting(path, body, key=key), stream=True)
            try:
                if not response.is_success:
                    await response.aread()
                    raise _refusal(response)
                async for chunk in response.aiter_bytes():
                    yield chunk
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
            told = orjson.loads(response.content)
        except orjson.JSONDecodeError:
            told = None
        if not isinstance(told, dict):
            raise unanswered("unexpected_answer", f"HTTP {response.status_code}, and the answer is no JSON object")
        return told


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
    except httpx.HTTPError as error:
        raise unanswered("no_answer", f"the answer did not come, or not whole ({type(error).__name__})") from None


def _asked_at(error: httpx.ConnectError) -> str:
    return str(error.request.url.copy_with(raw_path=b"/")).rstrip("/")


def _refusal(response: httpx.Response) -> CallFailed:
    return refused(response.status_code, response.content, retry_after=response.headers.get("retry-after"))
