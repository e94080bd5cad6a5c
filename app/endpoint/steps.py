"""The steps of registration: declare, create, recover, rotate, check, remove; each commits its result."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

import structlog
from prometheus_client import Counter

from app.core.records import path_key
from app.endpoint.errors import OutcomeUnknown, is_definite, is_gone, read_failure
from app.endpoint.inspection import EVENT_TYPES, Inspection, StepContext
from app.endpoint.models import NAME, Endpoint, State, Step, in_state, is_path_key, live, path_key_of, removable
from app.rivya.endpoint_payload import WebhookEndpoint
from app.rivya.errors import (
    RivyaError,
    RivyaForbidden,
    RivyaRateLimited,
    RivyaRefused,
    RivyaUnauthorized,
    RivyaUnreadable,
)

log = structlog.stdlib.get_logger(__name__)

ROTATIONS = Counter("receiver_secret_rotations", "Signing secrets replaced, by reason.", ["reason"])

SETTLE: Final = timedelta(seconds=5)
"""How long after a create a list without it is not trusted, because the create may still take effect."""
MOST_CREATES: Final = 5
"""Per hour. More would be a loop, in which something disables or removes each endpoint that we create."""
_HOUR: Final = timedelta(hours=1)


class Steps:
    """Each step starts from what is stored and ends with a commit, so a process may be killed anywhere in it."""

    def __init__(self, context: StepContext) -> None:
        self._context = context
        self._inspection = Inspection(context)
        self.orphans = self._inspection.orphans
        """Found by the last check; a list that is updated in place."""

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
        is_in_place = True
        match step:
            case Step.ROTATE:
                await self._rotate(wanted)
            case Step.SERVE:
                now = self._context.clock.now()
                await self._context.change(wanted, event=State.SERVING, state=State.SERVING, state_since=now)
                log.info("endpoint.serving", endpoint_id=wanted.id, rivya_id=wanted.rivya_id)
            case Step.RELOCATE:
                is_in_place = await self._inspection.relocate(wanted)
            case Step.CHECK:
                is_in_place = await self._inspection.check(wanted, endpoints)
            case Step.REQUEST_TEST:
                await self._request_test(wanted)
            case Step.REMOVE:
                await self._remove(removable(endpoints, now=self._context.clock.now()))
        if not is_in_place:
            await self._declare(endpoints)

    async def _declare(self, endpoints: Sequence[Endpoint]) -> None:
        now, key = self._context.clock.now(), path_key()
        created = [endpoint.created_at for endpoint in endpoints if endpoint.state is not State.MANUAL]
        if sum(created_at > now - _HOUR for created_at in created) >= MOST_CREATES:
            raise OutcomeUnknown("replaced_too_often")
        await self._context.repository.add_intent(path_key=key, url=self._context.url(key), now=now)

    async def _create(self, intended: Endpoint) -> None:
        self._context.require_key()
        url = self._context.url(intended.path_key)
        await self._context.change(intended, url=url, create_attempted_at=self._context.clock.now())
        try:
            created = await self._context.client.create_endpoint(NAME, url, EVENT_TYPES)
        except RivyaError as error:
            if is_definite(error):
                await self._context.change(intended, create_attempted_at=None)
            raise
        await self._store_created(intended, created, url=url, how="created")

    async def _recover(self, intended: Endpoint) -> None:
        """A create was sent: adopt the endpoint that it created, or make certain that it created none."""
        self._context.require_key()
        try:
            listed = await self._context.client.list_endpoints()
        except RivyaUnreadable as error:
            raise OutcomeUnknown("list_unreadable") from error
        # Its path ends with our key, whatever the rest of its URL; an active one is preferred.
        key, unrevoked = intended.path_key, [one for one in listed.endpoints if one.revoked_at is None]
        candidates = [one for one in unrevoked if is_path_key(key, path_key_of(one.url))]
        ours = min(candidates, key=lambda one: one.status != "active", default=None)
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
        await self._context.change(intended, create_attempted_at=None)

    async def _store_created(self, intended: Endpoint, registered: WebhookEndpoint, *, url: str, how: str) -> None:
        context, rivya_id = self._context, registered.id
        await context.hold()
        sealed, now = context.keys.encrypt(registered.secret or ""), context.clock.now()
        await context.repository.store_created(intended, rivya_id=rivya_id, url=url, sealed=sealed, now=now)
        log.info("endpoint.registered", endpoint_id=intended.id, rivya_id=rivya_id, how=how)

    async def _request_test(self, wanted: Endpoint) -> None:
        """Request a test delivery. A refusal is only logged, as the first real delivery proves the secret as well."""
        asked_at = self._inspection.asked_at = self._context.clock.now()
        await self._context.change(wanted, event="test_asked", test_asked_at=asked_at)
        try:
            await self._context.client.test_endpoint(wanted.rivya_id or "")
        except RivyaRefused as error:
            log.warning("endpoint.test_refused", endpoint_id=wanted.id, code=error.code, request_id=error.request_id)

    async def _remove(self, retiring: Endpoint | None) -> None:
        """Delete a replaced endpoint. Raises `RivyaError` if it may still exist."""
        if retiring is None:
            return
        context = self._context
        try:
            await context.client.delete_endpoint(retiring.rivya_id or "")
        except RivyaRefused as error:
            if not is_gone(error):
                raise
        now, overlap = context.clock.now(), context.secret_overlap
        await context.repository.retire(retiring, now=now, overlap=overlap, why="replaced")
        log.info("endpoint.retired", endpoint_id=retiring.id, rivya_id=retiring.rivya_id)

    async def _rotate(self, endpoint: Endpoint) -> None:
        """Request a new secret and store it. After a lost answer the mark stays, and the next run repeats this."""
        context = self._context
        context.require_key()
        await context.change(endpoint, rotation_attempted_at=context.clock.now())
        try:
            rotated = await context.client.rotate_endpoint_secret(endpoint.rivya_id or "")
        except RivyaError as error:
            if is_gone(error):
                await self._inspection.record_gone(endpoint)
                return
            if is_definite(error):
                await self._undo_attempt(endpoint, error)
            raise
        await context.hold()
        sealed, now = context.keys.encrypt(rotated.secret or ""), context.clock.now()
        await context.repository.store_rotated(endpoint, sealed=sealed, now=now, overlap=context.secret_overlap)
        why = _rotation_reason(endpoint)
        ROTATIONS.labels(why).inc()
        log.info("endpoint.secret_rotated", endpoint_id=endpoint.id, rivya_id=endpoint.rivya_id, why=why)

    async def _undo_attempt(self, endpoint: Endpoint, error: RivyaError) -> None:
        """Remove the mark of an attempt that changed nothing; a refusal for good also ends an admin's request.

        An earlier attempt whose outcome is unknown stays in doubt.
        """
        passes = RivyaUnauthorized | RivyaForbidden | RivyaRateLimited
        values: dict[str, Any] = {"rotation_attempted_at": endpoint.rotation_attempted_at}
        event = code = None
        if isinstance(error, RivyaRefused) and not isinstance(error, passes):
            event, code = "rotation_refused", read_failure(error).code
            values["rotation_requested_at"] = None
        await self._context.change(endpoint, event=event, detail=code, **values)


def _rotation_reason(endpoint: Endpoint) -> str:
    if endpoint.rotation_requested_at is not None:
        return "operator"
    return "secret_lost" if endpoint.secret_since is None else "schedule"
