"""Checks whether Rivya can reach us: probes our own public URL, and has Rivya send a test delivery."""

import asyncio
import hashlib
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import httpx

from app.core.clock import Clock
from app.core.errors import HealthCheck, tls_cause
from app.core.proxies import ProxyInvalid, proxy_for
from app.endpoint.errors import explain, read_failure
from app.endpoint.health import check
from app.endpoint.models import PATH, Endpoint, live
from app.endpoint.probe import ProbeKey, changed_headers
from app.endpoint.repository import EndpointRepository, StaleState
from app.rivya.client import RivyaClient
from app.rivya.errors import RivyaError

MOST_OFFSET: Final = timedelta(seconds=30)
"""A tenth of the offset that a signed timestamp may have."""
SLOW_SECONDS: Final = 2.0
"""Rivya documents that its time-out is short, without a number."""
_REFUSED: Final = (
    "came and was refused: GET /api/v1/rejections says why. If its signature does not match, "
    "`rivya-receiver endpoint rotate` gives a new secret, `rivya-receiver endpoint repin` proves the scheme anew"
)
_SILENT: Final = (
    "does a firewall or the proxy let Rivya's requests in? Rivya's own list of deliveries shows how it fared"
)
_MOST_BYTES: Final = 256 * 1024
"""Several times the largest answer of ours, which repeats the headers that arrived."""
_SECONDS_BETWEEN_READS: Final = 0.5
_SECONDS_OF_NOTICE: Final = 1.5
"""From the announcement of a test delivery until it is requested: every process has read that by then."""


class Reachability:
    """The checks of the way from Rivya to us. Their only effect is a test delivery that is sent and recorded."""

    def __init__(
        self,
        client: RivyaClient,
        repository: EndpointRepository,
        *,
        clock: Clock,
        key: ProbeKey,
        public_url: str | None,
        patience: timedelta = timedelta(seconds=30),
    ) -> None:
        self._client = client
        self._repository = repository
        self._clock = clock
        self._key = key
        self._public_url = public_url
        self._patience = patience
        self._lock = asyncio.Lock()

    async def check_all(self) -> list[HealthCheck]:
        """All checks of `health_checks`, one caller at a time: each looks at the deliveries that arrive meanwhile."""
        async with self._lock:
            return [check async for check in self.health_checks()]

    async def test_delivery(self) -> HealthCheck:
        """Only the test delivery, in turn with `check_all`. Raises `DatabaseUnavailable`."""
        async with self._lock:
            return await self._delivered(live(await self._repository.endpoints()))

    async def health_checks(self) -> AsyncIterator[HealthCheck]:
        """The checks, each as soon as it is done; a failed one says what to do. Raises `DatabaseUnavailable`."""
        if self._public_url is None:
            yield check("public_url", "RECEIVER_PUBLIC_URL is not set, so it is not known where Rivya would call")
            return
        wanted = live(await self._repository.endpoints())
        url = wanted.url if wanted is not None else f"{self._public_url}{PATH.rstrip('/')}"
        async for result in self._probe_checks(url):
            yield result
        yield await self._clock_offset()
        yield await self._delivered(wanted)

    async def _probe_checks(self, url: str) -> AsyncIterator[HealthCheck]:
        probe = self._key.make(secrets.token_hex(16), self._clock.now())
        try:
            answer = await send_probe(url, probe.body, headers=probe.headers)
            slashed = await send_probe(f"{url}/", probe.body, headers=probe.headers)
        except ProbeFailed as failure:
            detail = f"nothing answers ({failure}): does the name lead to the proxy, and is the proxy up?"
            if failure.is_tls:
                detail = f"TLS fails ({failure}): give the proxy a valid certificate with its whole chain"
            yield check("public_url", detail)
            return
        report = self._key.read(probe, answer.body)
        yield _answered(answer, report)
        if report is None:
            return

        is_same = self._key.read(probe, slashed.body) is not None
        remedy = f"a slash at the end makes it {slashed.status}: let the proxy pass both forms on"
        yield check("trailing_slash", "makes no difference" if is_same else remedy, ok=is_same)

        sent, is_same = len(probe.body), hashlib.sha256(probe.body).hexdigest() == report.get("sha256")
        remedy = f"({sent} bytes became {report.get('size')}): switch off whatever rewrites bodies in the proxy"
        detail = f"all {sent} bytes arrive unchanged" if is_same else f"was changed on the way {remedy}"
        yield check("body", detail, ok=is_same)

        changed = ", ".join(changed_headers(probe, report))
        remedy = f"{changed} did not arrive as sent: let the proxy pass all request headers on"
        yield check("headers", remedy if changed else "those of a signature arrive unchanged", ok=not changed)

        is_fast, detail = answer.seconds <= SLOW_SECONDS, f"answered within {answer.seconds:.2f} s"
        remedy = f"{detail}, and Rivya's time-out is short: look for what slows the way there"
        yield check("time_taken", detail if is_fast else remedy, ok=is_fast)

    async def _clock_offset(self) -> HealthCheck:
        try:
            theirs = await self._client.server_time()
        except RivyaError as error:
            return check("clock", f"not compared, since Rivya can't be asked: {explain(read_failure(error).code)}")
        if theirs is None:
            return check("clock", "Rivya's answers carry no time to compare with", ok=True)
        offset = (theirs - self._clock.now()).total_seconds()
        if abs(offset) <= MOST_OFFSET.total_seconds():
            return check("clock", f"{offset:+.0f} s from Rivya's", ok=True)
        remedy = "set ours by NTP, or deliveries are refused"
        return check("clock", f"Rivya's clock is {offset:+.0f} s from ours: {remedy}")

    async def _delivered(self, wanted: Endpoint | None) -> HealthCheck:
        name = "test_delivery"
        if wanted is None or wanted.rivya_id is None:
            return check(name, "no endpoint of ours is registered, so none was asked for; see /readyz for the reason")
        while wanted.is_awaiting_proof(self._clock.now()):  # for the one of the registration, which could be mistaken
            await asyncio.sleep(_SECONDS_BETWEEN_READS)
            wanted = await self._read(wanted)
        await self._announce(wanted, self._clock.now())
        await asyncio.sleep(_SECONDS_OF_NOTICE)
        try:
            return await self._tested(name, wanted)
        except RivyaError as error:
            return check(name, f"Rivya sends none: {explain(read_failure(error).code)}")
        finally:
            await self._announce(wanted, None)

    async def _announce(self, wanted: Endpoint, at: datetime | None) -> None:
        """Announce a test, or its end: a delivery that may be a test creates no generation meanwhile."""
        if wanted.secret_proven_at is not None:
            with suppress(StaleState):
                await self._repository.change(wanted, now=self._clock.now(), test_asked_at=at)

    async def _read(self, wanted: Endpoint) -> Endpoint:
        return next(known for known in await self._repository.endpoints() if known.id == wanted.id)

    async def _tested(self, name: str, wanted: Endpoint) -> HealthCheck:
        asked_at, seconds = self._clock.now(), self._patience.total_seconds()
        await self._client.test_endpoint(wanted.rivya_id or "")
        try:
            async with asyncio.timeout(seconds):
                while True:  # until the replica that received the delivery has stored what it did with it
                    known = await self._read(wanted)
                    if known.last_verified_at is not None and known.last_verified_at >= asked_at:
                        seconds = (known.last_verified_at - asked_at).total_seconds()
                        return check(name, f"came and was verified after {seconds:.1f} s", ok=True)
                    if known.last_refused_at is not None and known.last_refused_at >= asked_at:
                        return check(name, _REFUSED)
                    await asyncio.sleep(_SECONDS_BETWEEN_READS)
        except TimeoutError:
            return check(name, f"was asked for and did not come within {seconds:.0f} s: {_SILENT}")


@dataclass(frozen=True, slots=True)
class ProbeResponse:
    """The answer to a probe, its body cut at `_MOST_BYTES`, and the seconds that it took."""

    status: int
    location: str | None
    body: bytes
    seconds: float


class ProbeFailed(Exception):
    """No whole answer came; the text says why. `is_tls`: the connection was opened, but TLS failed."""

    def __init__(self, situation: str, *, is_tls: bool) -> None:
        super().__init__(situation)
        self.is_tls = is_tls


async def send_probe(url: str, body: bytes, *, headers: Mapping[str, str], seconds: float = 10.0) -> ProbeResponse:
    """The answer to a POST as Rivya sends it: no redirect is followed, the certificate is checked.

    Raises `ProbeFailed`, also if all this takes longer than `seconds`.
    """
    started = time.monotonic()
    try:
        proxy, verify = proxy_for(url), httpx.create_ssl_context()  # httpx reads SSL_CERT_FILE here
        async with (
            asyncio.timeout(seconds),
            httpx.AsyncClient(timeout=seconds, proxy=proxy, trust_env=False, verify=verify) as client,
            client.stream("POST", url, content=body, headers={"accept-encoding": "identity", **headers}) as answer,
        ):
            received = bytearray()
            async for chunk in answer.aiter_raw():  # raw, as one decompressed chunk could exceed any bound
                received += chunk
                if len(received) > _MOST_BYTES:
                    break
    except ProxyInvalid as error:
        raise ProbeFailed(str(error), is_tls=False) from error
    except TimeoutError as error:
        raise ProbeFailed(f"no whole answer within {seconds:g} s", is_tls=False) from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        tls = tls_cause(error)
        if tls is not None:
            raise ProbeFailed(getattr(tls, "verify_message", "") or "the handshake failed", is_tls=True) from error
        raise ProbeFailed(type(error).__name__, is_tls=False) from error
    location = answer.headers.get("location")
    return ProbeResponse(answer.status_code, location, bytes(received[:_MOST_BYTES]), time.monotonic() - started)


def _answered(answer: ProbeResponse, report: dict[str, Any] | None) -> HealthCheck:
    name = "public_url"
    if report is not None and answer.status == 200:
        return check(name, "leads to this receiver", ok=True)
    if 300 <= answer.status < 400:
        where = f" to {answer.location}" if answer.location else ""
        remedy = "set RECEIVER_PUBLIC_URL to where it leads, or let the proxy pass it on"
        return check(name, f"redirects ({answer.status}){where}, and Rivya follows no redirect: {remedy}")
    if answer.status in (502, 503, 504):
        return check(name, f"the proxy answers {answer.status}: does it lead to the port of a running receiver?")
    return check(
        name,
        f"answered {answer.status}, but not by a receiver with our RIVYA_API_KEY: does the proxy pass "
        f"POST {PATH}… on to this receiver, unchanged?",
    )
