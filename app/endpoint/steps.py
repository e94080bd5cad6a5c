"""The steps of registration: declare, create, recover, rotate, check, remove; each commits its result."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

import structlog

from app.core.ids import path_key
from app.endpoint.errors import OutcomeUnknown, is_definite, is_gone, read_failure
from app.endpoint.inspection import EVENT_TYPES, NAME, Inspection, Repair, StepContext
from app.endpoint.metrics import ROTATIONS
from app.endpoint.models import Endpoint, State, Step, in_state, is_path_key, live, path_key_of, removable
from app.endpoint.repository import RotationReason
from app.rivya.endpoint_payload import EndpointList, WebhookEndpoint
from app.rivya.errors import (
    RivyaError,
    RivyaForbidden,
    RivyaRateLimited,
    RivyaRefused,
    RivyaUnauthorized,
    RivyaUnreadable,
)

log = structlog.stdlib.get_logger(__name__)


SETTLE: Final = timedelta(seconds=5)
"""How long after a create a list without it is not trusted, because the create may still take effect."""
MOST_CREATES: Final = 5
"""Per hour. More would be a loop, in which something disables or removes each endpoint that we create."""
_HOUR: Final = timedelta(hours=1)


class Steps:
    """Each step starts from what is stored and ends with a commit, so a process may be killed anywhere in it."""

    def __init__(self, context: StepContext) -> None:
        self._context = context
        self._repair = Repair(context)
        self._inspection = Inspection(context, self._repair)

    async def take(self, step: Step, endpoints: Sequence[Endpoint]) -> None:
        """Do one step. Raises `RivyaError`, `OutcomeUnknown`, `StaleState`, `LeaseLost`, `DatabaseUnavailable`."""
        await self._context.hold()
        intended, wanted = in_state(endpoints, State.INTENDED), live(endpoints)
        if step is Step.DECLARE:
            await self._declare(endpoints)
        elif intended is not None:
            await (self._create(intended) if step is Step.CREATE else self._recover(intended))
        elif wanted is not None:
            await self._maintain(step, wanted, endpoints)

    async def _maintain(self, step: Step, wanted: Endpoint, endpoints: Sequence[Endpoint]) -> None:
        match step:
            case Step.ROTATE:
                await self._rotate(wanted)
            case Step.SERVE:
                await self._context.repository.serve(wanted, now=self._context.clock.now())
                log.info("endpoint.serving", endpoint_id=wanted.id, rivya_id=wanted.rivya_id)
            case Step.RELOCATE | Step.CHECK:
                is_move = step is Step.RELOCATE
                is_in_place = await (
                    self._repair.relocate(wanted) if is_move else self._inspection.check(wanted, endpoints)
                )
                if not is_in_place:
                    await self._declare(endpoints)
            case Step.REQUEST_TEST:
                await self._request_test(wanted)
            case Step.REMOVE:
                await self._remove(removable(endpoints, now=self._context.clock.now()))

    async def _declare(self, endpoints: Sequence[Endpoint]) -> None:
        now, key = self._context.clock.now(), path_key()
        if (
            sum(known.created_at > now - _HOUR for known in endpoints if known.state is not State.MANUAL)
            >= MOST_CREATES
        ):
            raise OutcomeUnknown("replaced_too_often")
        await self._context.repository.add_intent(path_key=key, url=self._context.url(key), now=now)

    async def _create(self, intended: Endpoint) -> None:
        self._context.require_key()
        url = self._context.url(intended.path_key)
        now = self._context.clock.now()
        await self._context.repository.change(intended, now=now, url=url, create_attempted_at=now)
        try:
            created = await self._context.client.create_endpoint(NAME, url, EVENT_TYPES)
        except RivyaError as error:
            if is_definite(error):
                await self._forget_attempt(intended)
            raise
        await self._store_created(intended, created, url=url, how="created")

    async def _recover(self, intended: Endpoint) -> None:
        """A create was sent: adopt the endpoint that it created, or make certain that it created none."""
        self._context.require_key()
        listed = await self._list()
        ours = _ours(listed.endpoints, intended)
        if ours is not None:
            await self._context.hold()
            # Its first secret was in an answer that was lost, or that a killed process received.
            rotated = await self._context.client.rotate_endpoint_secret(ours.id)
            await self._store_created(intended, rotated, url=ours.url, how="adopted")
            return
        if not listed.complete:
            raise OutcomeUnknown("list_incomplete")
        attempted = intended.create_attempted_at
        if attempted is not None and self._context.clock.now() < attempted + SETTLE:
            raise OutcomeUnknown("create_unsettled")
        await self._forget_attempt(intended)

    async def _forget_attempt(self, intended: Endpoint) -> None:
        await self._context.repository.change(intended, now=self._context.clock.now(), create_attempted_at=None)

    async def _store_created(self, intended: Endpoint, registered: WebhookEndpoint, *, url: str, how: str) -> None:
        await self._context.hold()
        sealed = self._context.keys.encrypt(registered.secret or "")
        now = self._context.clock.now()
        await self._context.repository.store_created(intended, rivya_id=registered.id, url=url, sealed=sealed, now=now)
        log.info("endpoint.registered", endpoint_id=intended.id, rivya_id=registered.id, how=how)

    async def _list(self) -> EndpointList:
        try:
            return await self._context.client.list_endpoints()
        except RivyaUnreadable as error:
            raise OutcomeUnknown("list_unreadable") from error

    async def _request_test(self, wanted: Endpoint) -> None:
        """Request a test delivery. A refusal is only logged, as the first real delivery proves the secret as well."""
        now = self._context.clock.now()
        await self._context.repository.change(wanted, now=now, event="test_asked", test_asked_at=now)
        try:
            await self._context.client.test_endpoint(wanted.rivya_id or "")
        except RivyaRefused as error:
            log.warning("endpoint.test_refused", endpoint_id=wanted.id, code=error.code, request_id=error.request_id)

    async def _remove(self, retiring: Endpoint | None) -> None:
        """Delete a replaced endpoint. Raises `RivyaError` if it may still exist."""
        if retiring is None:
            return
        try:
            await self._context.client.delete_endpoint(retiring.rivya_id or "")
        except RivyaRefused as error:
            if not is_gone(error):
                raise
        now = self._context.clock.now()
        await self._context.repository.retire(retiring, now=now, overlap=self._context.secret_overlap, why="replaced")
        log.info("endpoint.retired", endpoint_id=retiring.id, rivya_id=retiring.rivya_id)

    async def _rotate(self, endpoint: Endpoint) -> None:
        """Request a new secret and store it. After a lost answer the mark stays, and the next run repeats this."""
        self._context.require_key()
        await self._context.repository.record_rotation_attempt(endpoint, now=self._context.clock.now())
        try:
            rotated = await self._context.client.rotate_endpoint_secret(endpoint.rivya_id or "")
        except RivyaError as error:
            if is_gone(error):
                await self._retire(endpoint)
                return
            if is_definite(error):
                await self._undo_attempt(endpoint, error)
            raise
        await self._context.hold()
        sealed = self._context.keys.encrypt(rotated.secret or "")
        now, overlap = self._context.clock.now(), self._context.secret_overlap
        await self._context.repository.store_rotated(endpoint, sealed=sealed, now=now, overlap=overlap)
        why = _rotation_reason(endpoint)
        ROTATIONS.labels(why).inc()
        log.info("endpoint.secret_rotated", endpoint_id=endpoint.id, rivya_id=endpoint.rivya_id, why=why)

    async def _retire(self, endpoint: Endpoint) -> None:
        now = self._context.clock.now()
        await self._context.repository.retire(endpoint, now=now, overlap=timedelta(0), why="gone_at_rivya")
        log.warning("endpoint.repair", repair="gone", endpoint_id=endpoint.id, rivya_id=endpoint.rivya_id)

    async def _undo_attempt(self, endpoint: Endpoint, error: RivyaError) -> None:
        """Remove the mark of the attempt; a refusal for good also ends an admin's request."""
        passes = RivyaUnauthorized | RivyaForbidden | RivyaRateLimited
        is_final = isinstance(error, RivyaRefused) and not isinstance(error, passes)
        now, code = self._context.clock.now(), read_failure(error).code
        await self._context.repository.undo_rotation_attempt(endpoint, now=now, code=code, is_final=is_final)


def _ours(listed: Sequence[WebhookEndpoint], intended: Endpoint) -> WebhookEndpoint | None:
    """The endpoint whose path ends with our key, whatever the rest of its URL; an active one if possible."""
    candidates = [
        endpoint
        for endpoint in listed
        if is_path_key(intended.path_key, path_key_of(endpoint.url)) and endpoint.revoked_at is None
    ]
    return min(candidates, key=lambda endpoint: endpoint.status != "active", default=None)


def _rotation_reason(endpoint: Endpoint) -> RotationReason:
    if endpoint.rotation_requested_at is not None:
        return RotationReason.OPERATOR
    return RotationReason.LOST if endpoint.secret_since is None else RotationReason.SCHEDULE
