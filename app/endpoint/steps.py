"""The steps that lead to an endpoint with a known secret: intend, create, recover; each commits what it learnt."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import structlog

from app.core.clock import Clock
from app.core.ids import path_key
from app.core.sealing import SealingKeys
from app.endpoint.acts import Act, Endpoint, in_state
from app.endpoint.callback_url import callback_url, path_key_of
from app.endpoint.failures import Undecided, is_definite
from app.endpoint.inspection import Inspection
from app.endpoint.registry import Registry
from app.endpoint.replacement import Replacement
from app.endpoint.state import State
from app.rivya.client import RivyaClient
from app.rivya.errors import RivyaError, RivyaUnreadable
from app.rivya.payloads import EndpointList, WebhookEndpoint

NAME: Final = "rivya-receiver"
EVENT_TYPES: Final = ("generation.succeeded", "generation.failed")
SETTLE: Final = timedelta(seconds=5)
"""A create whose answer was lost may still be under way: an empty list is believed only so long after it."""

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Means:
    """What the steps work with; `hold` renews the lease and raises `LeaseLost`."""

    client: RivyaClient
    registry: Registry
    clock: Clock
    keys: SealingKeys
    public_url: str
    hold: Callable[[], Awaitable[None]]


class Steps:
    """Each step begins at what is stored and ends with a commit, so that a process may be killed anywhere in it."""

    def __init__(self, means: Means) -> None:
        self._with = means
        self._inspection = Inspection(means.client, means.registry, means.clock)
        self._replacement = Replacement(means.client, means.registry, means.clock)
        self.checked_id: str | None = None
        """The endpoint whose existence at Rivya this process has seen to."""

    async def take(self, act: Act, endpoints: Sequence[Endpoint]) -> None:
        """Do one step. Raises `RivyaError`, `Undecided`, `Overtaken`, `LeaseLost`, `DatabaseUnavailable`."""
        await self._with.hold()
        intended = in_state(endpoints, State.INTENDED)
        serving = in_state(endpoints, State.SERVING)
        retiring = in_state(endpoints, State.RETIRING)
        if act is Act.INTEND:
            await self._intend()
        elif act is Act.CREATE and intended is not None:
            await self._create(intended)
        elif act is Act.RECOVER and intended is not None:
            await self._recover(intended)
        elif act is Act.MOVE and serving is not None:
            if not await self._replacement.move(serving, self._url(serving.path_key)):
                await self._intend()
        elif act is Act.CHECK and serving is not None:
            await self._inspection.check(serving, endpoints)
            self.checked_id = serving.id
        elif act is Act.REMOVE and retiring is not None:
            await self._replacement.remove(retiring)

    async def _intend(self) -> None:
        key = path_key()
        await self._with.registry.add_intent(path_key=key, url=self._url(key), now=self._with.clock.now())

    async def _create(self, intended: Endpoint) -> None:
        self._require_key()
        url = self._url(intended.path_key)
        await self._with.registry.note_attempt(intended, url=url, now=self._with.clock.now())
        try:
            made = await self._with.client.create_endpoint(NAME, url, EVENT_TYPES)
        except RivyaError as error:
            if is_definite(error):
                await self._with.registry.forget_attempt(intended, now=self._with.clock.now())
            raise
        await self._serve(intended, made, url=url, how="created")

    async def _recover(self, intended: Endpoint) -> None:
        """A create was sent: adopt what it made, or learn for certain that it made nothing."""
        self._require_key()
        listed = await self._list()
        ours = _ours(listed.endpoints, intended)
        if ours is not None:
            await self._with.hold()
            # Its secret was shown once, to a process that is no more, or in an answer that never came.
            rotated = await self._with.client.rotate_endpoint_secret(ours.id)
            await self._serve(intended, rotated, url=ours.url, how="adopted")
            return
        if not listed.complete:
            raise Undecided("list_incomplete")
        now = self._with.clock.now()
        if intended.create_attempted_at is not None and now < intended.create_attempted_at + SETTLE:
            raise Undecided("create_unsettled")
        await self._with.registry.forget_attempt(intended, now=now)

    async def _serve(self, intended: Endpoint, told: WebhookEndpoint, *, url: str, how: str) -> None:
        await self._with.hold()
        sealed = self._with.keys.seal(told.secret or "")
        now = self._with.clock.now()
        await self._with.registry.serve(intended, rivya_id=told.id, url=url, sealed=sealed, now=now)
        log.info("endpoint.registered", endpoint_id=intended.id, rivya_id=told.id, how=how)

    async def _list(self) -> EndpointList:
        try:
            return await self._with.client.list_endpoints()
        except RivyaUnreadable as error:
            raise Undecided("list_unreadable") from error

    def _url(self, key: str) -> str:
        return callback_url(self._with.public_url, key)

    def _require_key(self) -> None:
        if self._with.keys.newest is None:
            raise Undecided("encryption_key_missing")


def _ours(listed: Sequence[WebhookEndpoint], intended: Endpoint) -> WebhookEndpoint | None:
    """The one whose path ends with our key, whatever the rest of its URL looks like; one that is active if possible."""
    found = [told for told in listed if path_key_of(told.url) == intended.path_key and told.revoked_at is None]
    return min(found, key=lambda told: told.status != "active", default=None)
