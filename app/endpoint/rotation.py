"""Replaces the signing secret: the intent is committed before the call, the old secret is accepted long after it."""

from datetime import timedelta

import structlog

from app.endpoint.endpoint import Endpoint
from app.endpoint.failures import is_definite, is_gone, read_failure
from app.endpoint.means import Means
from app.endpoint.measures import ROTATIONS
from app.endpoint.rotations import Why
from app.rivya.errors import RivyaError, RivyaForbidden, RivyaRateLimited, RivyaRefused, RivyaUnauthorized

log = structlog.stdlib.get_logger(__name__)


class Rotation:
    """A rotation whose answer was lost is repeated: each gives a new secret, and only the stored one counts."""

    def __init__(self, means: Means) -> None:
        self._with = means

    async def rotate(self, endpoint: Endpoint) -> None:
        """Ask for a new secret and store it. Raises `RivyaError`, `Undecided`, `Overtaken`, `LeaseLost`."""
        self._with.require_key()
        await self._with.rotations.note_attempt(endpoint, now=self._with.clock.now())
        try:
            told = await self._with.client.rotate_endpoint_secret(endpoint.rivya_id or "")
        except RivyaError as error:
            if is_gone(error):
                await self._retire(endpoint)
                return
            if is_definite(error):
                await self._take_back(endpoint, error)
            raise
        await self._with.hold()
        sealed = self._with.keys.seal(told.secret or "")
        now, overlap = self._with.clock.now(), self._with.secret_overlap
        await self._with.rotations.keep(endpoint, sealed=sealed, now=now, overlap=overlap)
        why = _why(endpoint)
        ROTATIONS.labels(why).inc()
        log.info("endpoint.secret_rotated", endpoint_id=endpoint.id, rivya_id=endpoint.rivya_id, why=why)

    async def _retire(self, endpoint: Endpoint) -> None:
        now = self._with.clock.now()
        await self._with.registry.retire(endpoint, now=now, overlap=timedelta(0), why="gone_at_rivya")
        log.warning("endpoint.repair", repair="gone", endpoint_id=endpoint.id, rivya_id=endpoint.rivya_id)

    async def _take_back(self, endpoint: Endpoint, error: RivyaError) -> None:
        """A wish that Rivya refuses is given up; a secret that is missing goes on being asked for."""
        passes = RivyaUnauthorized | RivyaForbidden | RivyaRateLimited
        is_final = isinstance(error, RivyaRefused) and not isinstance(error, passes)
        now, code = self._with.clock.now(), read_failure(error).code
        await self._with.rotations.take_back(endpoint, now=now, code=code, is_final=is_final)


def _why(endpoint: Endpoint) -> Why:
    if endpoint.rotation_requested_at is not None:
        return Why.OPERATOR
    return Why.LOST if endpoint.secret_since is None else Why.SCHEDULE
