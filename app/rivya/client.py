"""A client of Rivya's API: one method per call, with typed results, typed errors and a deadline."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from ssl import SSLContext
from types import TracebackType
from typing import Any, Final, Self, TypeVar
from urllib.parse import quote

import httpx
import orjson

from app.core.models import Claim
from app.core.records import is_header_value, json_object
from app.rivya.endpoint_payload import EndpointList, WebhookEndpoint, read_endpoint, read_endpoint_list, read_rotation
from app.rivya.errors import RivyaNotFound, RivyaUnreadable, read_date, read_error
from app.rivya.payloads import PayloadUnreadable, read_generation, read_json, read_models, usable_id
from app.rivya.transport import MOST_BODY_BYTES, MOST_CONNECTIONS, BeforeSend, PollConnections, RawResponse, Transport

_LONGEST_KEY: Final = 255
_Read = TypeVar("_Read")


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds that a whole call may take: reading a status, creating a generation, everything else."""

    status: float = 10.0
    create: float = 30.0
    manage: float = 10.0


@dataclass(frozen=True, slots=True)
class CreateAnswer:
    """Rivya's answer to an accepted create: HTTP status, generation, and the body unchanged."""

    status: int
    generation: Claim
    body: bytes


class RivyaClient:
    """Calls Rivya's API: statuses over `polls` connections of their own, everything else over one pool.

    `relayed_calls` of callers may be open at once: the pool has that many connections more.
    Every method raises RivyaRefused (and its subclasses), RivyaUnavailable or RivyaUnreadable, and retries nothing.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str,
        *,
        deadlines: Deadlines = Deadlines(),
        most_body_bytes: int = MOST_BODY_BYTES,
        polls: int = MOST_CONNECTIONS,
        relayed_calls: int = 0,
        verify: SSLContext | None = None,
    ) -> None:
        verify = verify or httpx.create_ssl_context()
        self._transport = Transport(
            base_url,
            api_key,
            verify=verify,
            most_body_bytes=most_body_bytes,
            most_connections=MOST_CONNECTIONS + relayed_calls,
        )
        self._polls = PollConnections(base_url, api_key, most=polls, verify=verify, most_body_bytes=most_body_bytes)
        self.deadlines = deadlines
        self.open = self._transport.open
        """Relays a call with our key: Rivya's response, whatever its status; the caller closes it."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._polls.aclose()
        await self._transport.aclose()

    async def get_generation(self, generation_id: str, *, before_send: BeforeSend | None = None) -> Claim:
        """The generation with its status. Raises RequestWithheld if `before_send` returns False."""
        path = f"/api/v1/generations/{segment(generation_id)}"
        response = await self._polls.get(path, seconds=self.deadlines.status, before_send=before_send)
        generation = _read(read_generation, _raise_for_status(response))
        if generation.id != generation_id:
            raise RivyaUnreadable("the answer is about another generation", status=response.status)
        return generation

    async def create_generation(
        self, body: bytes, *, idempotency_key: str, traceparent: str | None = None
    ) -> CreateAnswer:
        """Send `body` as a create, as a part of the caller's trace.

        After RivyaUnavailable with `sent`, or RivyaUnreadable, it may have succeeded.

        Raises ValueError for a key that is not 1 to 255 printable ASCII characters.
        """
        if len(idempotency_key) > _LONGEST_KEY or not is_header_value(idempotency_key):
            raise ValueError("an idempotency key has 1 to 255 printable ASCII characters")
        headers = {"idempotency-key": idempotency_key, **({"traceparent": traceparent} if traceparent else {})}
        seconds = self.deadlines.create
        response = await self._call("POST", "/api/v1/generations", seconds=seconds, body=body, headers=headers)
        generation = _read(read_generation, response)
        returned_key = response.headers.get("idempotency-key", idempotency_key)
        if returned_key != idempotency_key or not _answers_create(body, generation):
            raise RivyaUnreadable("the answer is about another create", status=response.status)
        return CreateAnswer(response.status, generation, response.body)

    async def list_endpoints(self) -> EndpointList:
        """The account's webhook endpoints; `complete` is False if there may be another page."""
        return _read(read_endpoint_list, await self._manage("GET"))

    async def create_endpoint(self, name: str, url: str, event_types: Sequence[str]) -> WebhookEndpoint:
        """Register an endpoint. Only this result has its secret."""
        fields = {"name": name, "url": url, "event_types": list(event_types)}
        response = await self._manage("POST", fields=fields)
        endpoint = _read(_read_endpoint_body, response)
        if endpoint.secret is None:
            raise RivyaUnreadable("an endpoint was made but its secret not shown", status=response.status)
        return endpoint

    async def get_endpoint(self, endpoint_id: str) -> WebhookEndpoint:
        """One endpoint."""
        response = await self._manage("GET", endpoint_id)
        endpoint = _read(_read_endpoint_body, response)
        if endpoint.id != endpoint_id:
            raise RivyaUnreadable("the answer is about another endpoint", status=response.status)
        return endpoint

    async def update_endpoint(self, endpoint_id: str, **fields: Any) -> WebhookEndpoint | None:  # noqa: ANN401
        """Change members of an endpoint; None when it succeeded but the response has no endpoint."""
        response = await self._manage("PATCH", endpoint_id, fields=fields)
        try:
            endpoint = _read_endpoint_body(response.body)
        except PayloadUnreadable:
            return None
        return endpoint if endpoint.id == endpoint_id else None

    async def delete_endpoint(self, endpoint_id: str) -> None:
        """Delete an endpoint."""
        await self._manage("DELETE", endpoint_id)

    async def rotate_endpoint_secret(self, endpoint_id: str) -> WebhookEndpoint:
        """Replace an endpoint's secret, which only this result has; the URL is empty if the response has none."""
        response = await self._manage("POST", endpoint_id, action="/rotate-secret")
        return _read(lambda body: read_rotation(body, endpoint_id), response)

    async def test_endpoint(self, endpoint_id: str) -> None:
        """Ask for a test delivery."""
        await self._manage("POST", endpoint_id, action="/test")

    async def server_time(self) -> datetime | None:
        """The time in the `Date` header of Rivya's responses, to the second; None without one."""
        return read_date((await self._call("GET", "/api/v1/models")).headers)

    async def models(self) -> dict[str, str]:
        """The category of each model by its id."""
        return _read(read_models, await self._call("GET", "/api/v1/models"))

    async def _manage(
        self, method: str, endpoint_id: str | None = None, *, action: str = "", fields: dict[str, Any] | None = None
    ) -> RawResponse:
        path = "/api/v1/webhooks" if endpoint_id is None else f"/api/v1/webhooks/{segment(endpoint_id)}{action}"
        return await self._call(method, path, body=None if fields is None else orjson.dumps(fields))

    async def _call(self, method: str, path: str, *, seconds: float | None = None, **content: Any) -> RawResponse:  # noqa: ANN401
        seconds = self.deadlines.manage if seconds is None else seconds
        return _raise_for_status(await self._transport.exchange(method, path, seconds=seconds, **content))


def _raise_for_status(response: RawResponse) -> RawResponse:
    if not response.ok:
        raise read_error(response.status, response.body, response.headers)
    return response


def _read(reader: Callable[[bytes], _Read], response: RawResponse) -> _Read:
    try:
        return reader(response.body)
    except PayloadUnreadable as error:
        raise RivyaUnreadable(
            f"the answer ({response.status}) is unreadable: {error}", status=response.status
        ) from error


def _answers_create(body: bytes, generation: Claim) -> bool:
    """False if Rivya returned a client_request_id (which is not documented) that is not the one in the create."""
    asked = (json_object(body) or {}).get("client_request_id")
    returned = generation.client_request_id
    return asked is None or returned is None or asked == returned


def _read_endpoint_body(body: bytes) -> WebhookEndpoint:
    return read_endpoint(read_json(body))


def segment(identity: str) -> str:
    """An id as one path segment. Raises RivyaNotFound for a text that can't be an id, and for `.` and `..`."""
    if usable_id(identity) is None or identity in {".", ".."}:
        raise RivyaNotFound(404, "not_found", "this can't be an id of Rivya's")
    return quote(identity, safe="")
