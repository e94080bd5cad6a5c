"""Brings events to endpoints: signed, retried with backoff, and as faulty as told."""

from collections import deque
from datetime import timedelta
from functools import partial

from app.sandbox.clock import Clock, stamp
from app.sandbox.endpoint import Endpoint
from app.sandbox.endpoints import Endpoints
from app.sandbox.envelope import wrap
from app.sandbox.event import Delivery
from app.sandbox.ids import new_secret
from app.sandbox.outbound import Outbound, Unreachable
from app.sandbox.settings import SandboxSettings
from app.sandbox.signing import Message, sign
from app.sandbox.work import Work


class Courier:
    """Delivers; every delivery, dropped ones included, stays in a bounded log."""

    def __init__(
        self,
        endpoints: Endpoints,
        *,
        settings: SandboxSettings,
        clock: Clock,
        work: Work,
        outbound: Outbound,
        keep: int,
    ) -> None:
        self._endpoints = endpoints
        self._settings = settings
        self._clock = clock
        self._work = work
        self._outbound = outbound
        self._held: dict[str, list[Delivery]] = {}
        self.log: deque[Delivery] = deque(maxlen=keep)

    async def send(self, deliveries: list[Delivery]) -> None:
        """Deliver in this order, all with the faults of the first; returns after the attempts that are due now."""
        if not deliveries:
            return
        self.log.extend(deliveries)
        faults = deliveries[0].faults
        if faults.drop:
            for delivery in deliveries:
                delivery.status = "dropped"
        elif faults.delay:
            self._work.later(faults.delay, partial(self._send, deliveries))
        else:
            await self._send(deliveries)

    async def _send(self, deliveries: list[Delivery]) -> None:
        endpoint_id = deliveries[0].endpoint_id
        if deliveries[0].faults.reorder and endpoint_id not in self._held:
            self._held[endpoint_id] = deliveries
            self._work.later(self._settings.reorder_seconds, partial(self._release, endpoint_id))
            return
        await self._attempt_all(deliveries)
        await self._release(endpoint_id)

    async def _release(self, endpoint_id: str) -> None:
        await self._attempt_all(self._held.pop(endpoint_id, []))

    async def _attempt_all(self, deliveries: list[Delivery]) -> None:
        for delivery in deliveries:
            await self._attempt(delivery)

    async def _attempt(self, delivery: Delivery) -> None:
        endpoint = self._endpoints.by_id.get(delivery.endpoint_id)
        if endpoint is None or endpoint.status != "active":
            delivery.status = "abandoned"
            return
        status, error = await self._post(delivery, endpoint)
        succeeded = status is not None and 200 <= status < 300
        now = self._clock.now()
        delivery.attempts.append(
            {
                "at": stamp(now),
                "monotonic": self._clock.monotonic(),
                "response_status": status,
                "error": error,
            }
        )
        endpoint.note(now, succeeded=succeeded, disable_after=self._settings.disable_after)
        if succeeded:
            delivery.status = "succeeded"
        else:
            self._retry(delivery)

    async def _post(self, delivery: Delivery, endpoint: Endpoint) -> tuple[int | None, str | None]:
        body, headers = self._signed(delivery, endpoint)
        try:
            patience = self._settings.delivery_timeout
            return await self._outbound.post(endpoint.url, body, headers=headers, patience=patience), None
        except Unreachable as failure:
            return None, str(failure)

    def _signed(self, delivery: Delivery, endpoint: Endpoint) -> tuple[bytes, dict[str, str]]:
        settings, event, faults = self._settings, delivery.event, delivery.faults
        body = wrap(event.head(), event.carried, settings.envelope)
        secrets = endpoint.signing_secrets(
            self._work.time(), lag=settings.rotation_lag, overlap=settings.rotation_overlap
        )
        if faults.forge:
            secrets = [new_secret(settings.scheme.key_form)]
        sent_at = self._clock.now() + timedelta(seconds=faults.skew)
        headers = sign(settings.scheme, secrets, Message(event.id, sent_at, body))
        # Still the same JSON to a parser, so that only a check over the raw bytes can notice.
        body = body[:-1] + b" }" if faults.corrupt else body
        return body, {"Content-Type": "application/json", "User-Agent": "Rivya-Sandbox/1", **headers}

    def _retry(self, delivery: Delivery) -> None:
        retries = len(delivery.attempts) - 1
        if retries >= len(self._settings.retry_delays):
            delivery.status = "failed"
            return
        self._work.later(self._settings.retry_delays[retries], partial(self._attempt, delivery))
