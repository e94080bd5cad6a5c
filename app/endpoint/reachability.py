"""Can Rivya reach us? Knocks at our own public URL from outside, and has Rivya send a test delivery."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Final

from app.core.clock import Clock
from app.core.errors import Finding
from app.endpoint import judgement
from app.endpoint.callback_url import PATH
from app.endpoint.endpoint import Endpoint, live
from app.endpoint.failures import explain, read_failure
from app.endpoint.probe import ProbeKey
from app.endpoint.registry import Registry
from app.rivya.client import RivyaClient
from app.rivya.errors import RivyaError
from app.rivya.knocking import KnockFailed, knock

MOST_OFFSET: Final = timedelta(seconds=30)
"""A tenth of what a signed timestamp may be off."""
_LOOK_EVERY: Final = 0.5


class Reachability:
    """Each finding says what to do about it. Changes nothing but that a test delivery is sent and recorded."""

    def __init__(
        self,
        client: RivyaClient,
        registry: Registry,
        *,
        clock: Clock,
        key: ProbeKey,
        public_url: str | None,
        patience: timedelta = timedelta(seconds=30),
    ) -> None:
        self._client = client
        self._registry = registry
        self._clock = clock
        self._key = key
        self._public_url = public_url
        self._patience = patience

    async def findings(self) -> AsyncIterator[Finding]:
        """One after the other, as they are known. Raises `DatabaseUnavailable`."""
        if self._public_url is None:
            yield judgement.found(
                "public_url", "RECEIVER_PUBLIC_URL is not set, so it is not known where Rivya would call"
            )
            return
        wanted = live(await self._registry.endpoints())
        url = wanted.url if wanted is not None else f"{self._public_url}{PATH.rstrip('/')}"
        async for finding in self._knocked(url):
            yield finding
        yield await self._clock_offset()
        yield await self._delivered(wanted)

    async def _knocked(self, url: str) -> AsyncIterator[Finding]:
        probe = self._key.make(secrets.token_hex(16), self._clock.now())
        try:
            answer = await knock(url, probe.body, headers=probe.headers)
            slashed = await knock(f"{url}/", probe.body, headers=probe.headers)
        except KnockFailed as failure:
            yield judgement.unreached(failure)
            return
        told = self._key.read(probe, answer.body)
        yield judgement.answered(answer, told)
        if told is None:
            return
        yield judgement.slash(slashed, self._key.read(probe, slashed.body))
        yield judgement.body(probe, told)
        yield judgement.headers(probe, told)
        yield judgement.time_taken(answer)

    async def _clock_offset(self) -> Finding:
        try:
            theirs = await self._client.told_time()
        except RivyaError as error:
            return judgement.found(
                "clock", f"not compared, since Rivya can't be asked: {explain(read_failure(error).code)}"
            )
        if theirs is None:
            return judgement.found("clock", "Rivya's answers carry no time to compare with", ok=True)
        offset = (theirs - self._clock.now()).total_seconds()
        if abs(offset) > MOST_OFFSET.total_seconds():
            return judgement.found(
                "clock", f"Rivya's clock is {offset:+.0f} s from ours: set ours by NTP, or deliveries are refused"
            )
        return judgement.found("clock", f"{offset:+.0f} s from Rivya's", ok=True)

    async def _delivered(self, wanted: Endpoint | None) -> Finding:
        name = "test_delivery"
        if wanted is None or wanted.rivya_id is None:
            return judgement.found(
                name, "no endpoint of ours is registered, so none was asked for; see /readyz for the reason"
            )
        asked_at = self._clock.now()
        try:
            await self._client.test_endpoint(wanted.rivya_id)
        except RivyaError as error:
            return judgement.found(name, f"Rivya sends none: {explain(read_failure(error).code)}")
        try:
            async with asyncio.timeout(self._patience.total_seconds()):
                return await self._arrived(wanted, asked_at)
        except TimeoutError:
            waited = f"{self._patience.total_seconds():.0f} s"
            return judgement.found(name, f"was asked for and did not come within {waited}: {judgement.SILENT}")

    async def _arrived(self, wanted: Endpoint, asked_at: datetime) -> Finding:
        """How it fared, as whichever replica it reached has written it down."""
        while True:
            known = next(known for known in await self._registry.endpoints() if known.id == wanted.id)
            if known.last_verified_at is not None and known.last_verified_at >= asked_at:
                seconds = (known.last_verified_at - asked_at).total_seconds()
                return judgement.found("test_delivery", f"came and was verified after {seconds:.1f} s", ok=True)
            if known.last_refused_at is not None and known.last_refused_at >= asked_at:
                return judgement.found("test_delivery", judgement.REFUSED)
            await asyncio.sleep(_LOOK_EVERY)
