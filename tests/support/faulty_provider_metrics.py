"""What our metrics have to show, told from what the sandbox did alone: an account of every gap that was caused."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import orjson
from prometheus_client import REGISTRY

from app.sandbox.faults import DeliveryFaults
from app.sandbox.state import CallRecord, Sandbox

READABLE = ("unknown_members", "huge_numbers", "wrong_type")
"""Alterations that leave the truth to be read."""
TOLERANCE = 300
ENDS = ("succeeded", "failed")
_COUNTERS = {
    "receiver_polls_total": "result",
    "receiver_refusals_total": "reason",
    "receiver_endpoint_repairs_total": "repair",
    "receiver_submissions_total": "result",
    "receiver_callbacks_missed_total": "",
    "receiver_generations_lost_total": "",
}


@dataclass
class Posted:
    """One delivery as it reached intake, and what became of it."""

    body: bytes
    status: int
    at: float
    offset: float
    """Seconds by which Rivya's clock was ahead."""


@dataclass
class Counted:
    """How far our counters moved since this was made."""

    before: dict[str, Counter[str]] = field(default_factory=lambda: _counters())  # noqa: PLW0108 - it is defined below

    def since(self, name: str) -> Counter[str]:
        """By label value, `""` where there is none; what did not move is not in it."""
        now = _counters()[f"receiver_{name}_total"]
        return Counter(
            {word: count for word in now if (count := now[word] - self.before[f"receiver_{name}_total"][word])}
        )


def _counters() -> dict[str, Counter[str]]:
    counts: dict[str, Counter[str]] = {name: Counter() for name in _COUNTERS}
    for metric in REGISTRY.collect():
        for sample in metric.samples:
            if sample.name in counts:
                counts[sample.name][sample.labels.get(_COUNTERS[sample.name], "")] += int(sample.value)
    return counts


def poll_result(called: CallRecord) -> str:
    """How a poll that Rivya answered like this is to be counted; `answered` for any status."""
    fault = called.fault
    if fault is not None and (fault.connection or fault.hang):
        return "unavailable"
    if fault is not None and fault.status is None and fault.alter not in READABLE:
        return "unreadable" if called.status == 200 else "unavailable"  # an error that is not in Rivya's words
    if fault is not None and fault.status is None and called.status == 200:
        return "answered"
    if called.status == 200:
        return "answered" if fault is None else "unreadable"
    known = {429: "rate_limited", 401: "unauthorized", 403: "unauthorized", 404: "not_found"}
    status = called.status or 500
    return known.get(status, "refused" if status < 500 else "unavailable")


def polls(sandbox: Sandbox) -> Counter[str]:
    """Polls by result."""
    return Counter(map(poll_result, sandbox.calls.of("generations.get")))


def counted_polls(counted: Counter[str]) -> Counter[str]:
    """What we counted, with the four statuses as one."""
    results: Counter[str] = Counter()
    for word, count in counted.items():
        results["answered" if word in ("queued", "processing", *ENDS) else word] += count
    return results


def refusals(sandbox: Sandbox, posted: list[Posted]) -> Counter[str]:
    """Refused deliveries by the reason that the sandbox gave for it."""
    suffered = {delivery.event.id: delivery.faults for delivery in sandbox.sender.log}
    return Counter(_reason(suffered[_event(one)["id"]], one) for one in posted if 400 <= one.status < 500)


def _reason(faults: DeliveryFaults, one: Posted) -> str:
    if faults.forge or faults.corrupt:
        return "signature_mismatch"
    ahead = faults.skew + one.offset
    if abs(ahead) > TOLERANCE:
        return "future_timestamp" if ahead > 0 else "stale_timestamp"
    return "unexplained"


def missed(sandbox: Sandbox, posted: list[Posted], ended_at: dict[str, float]) -> int:
    """Outcomes that a poll was told before a callback with the outcome was taken.

    What is not in `ended_at` ended before its create was answered.
    """
    heard: dict[str, float] = {}
    for one in posted:
        carried = _event(one)["data"]
        if one.status == 200 and carried.get("status") in ENDS:
            heard.setdefault(carried["id"], one.at)
    polled_first = {
        generation_id
        for called in sandbox.calls.of("generations.get")
        if poll_result(called) == "answered"
        and ended_at.get(generation_id := called.path.rpartition("/")[2], 0.0) <= called.monotonic
        and called.monotonic < heard.get(generation_id, float("inf"))
    }
    return len(polled_first)


def left_open(sandbox: Sandbox) -> set[str]:
    """Keys of creates whose first answer left open what came of them."""
    first: dict[str, CallRecord] = {}
    for called in sandbox.calls.of("generations.create"):
        first.setdefault(called.idempotency_key or "", called)
    return {key for key, called in first.items() if _is_open(called)}


def _is_open(called: CallRecord) -> bool:
    fault = called.fault
    if fault is None:
        return False
    if fault.connection or fault.hang:
        return True
    if fault.status is None:
        return fault.alter not in READABLE and called.status == 200
    return fault.status < 300 or (fault.status >= 500 and fault.body != "error")


def _event(one: Posted) -> dict[str, Any]:
    event: dict[str, Any] = orjson.loads(one.body)
    return event
