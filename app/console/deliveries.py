"""Deliveries, their evidence, and their replay, which shows first what it would do; and the refused ones by reason."""

from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

import orjson
from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict

from app.api.deliveries import read_one
from app.api.parameters import DeliveryParameters, Instant, Text, read_list
from app.console.filters import pretty
from app.console.pages import Console, parse_query
from app.core.auth import Caller, Role
from app.core.records import parse_json
from app.intake.rejections import MALFORMED
from app.ledger.models import DeliveryFilter, Outcome
from app.operations.commands import Replayed
from app.operations.routes import MOST_REPLAYED

MOST_SHOWN: Final = 100
"""Deliveries of a replay that are listed one by one."""
MOST_REJECTIONS: Final = 1000
_LIST: Final = "/console/deliveries"

REMEDIES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "missing_signature": "no signature in the headers: not from Rivya, or the proxy removes headers",
        "malformed_signature": "the header of the signature is not of the proven form: see Endpoint",
        "signature_mismatch": "signed with another secret, or changed on the way: forged, or see Endpoint, Rotate",
        "stale_timestamp": "signed more than 300 s ago: a replayed request, or this machine's clock; set it by NTP",
        "future_timestamp": "signed more than 300 s ahead of this machine's clock: set it by NTP",
        "no_secret": "no secret is known yet: see Endpoint",
        **MALFORMED,
    }
)


class ReplayChoice(BaseModel):
    """Which deliveries are replayed; all of them without a filter."""

    model_config = ConfigDict(extra="forbid")

    event_id: Text | None = None
    generation_id: Text | None = None
    outcome: Outcome | None = None
    event_type: Text | None = None
    received_after: Instant | None = None
    received_before: Instant | None = None

    @property
    def chosen(self) -> DeliveryFilter:
        """The filter for the query."""
        return DeliveryFilter(**self.model_dump())


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """What a replay does or did: counts by result, the first deliveries, and whether there are more than it takes."""

    counts: Mapping[str, int]
    first: Sequence[Replayed]
    is_cut: bool
    last_received_at: datetime | None

    @property
    def total(self) -> int:
        """How many deliveries."""
        return sum(self.counts.values())

    @property
    def summary(self) -> str:
        """The counts in words."""
        results = ", ".join(f"{count} {result.replace('_', ' ')}" for result, count in self.counts.items())
        return f"{self.total} {'delivery' if self.total == 1 else 'deliveries'}: {results}"


async def collect(replayed: AsyncIterator[Replayed]) -> ReplayResult:
    """The result of a replay, of `MOST_REPLAYED` deliveries at most."""
    counts: Counter[str] = Counter()
    first: list[Replayed] = []
    last, is_cut = None, False
    async for each in replayed:
        counts[each.result] += 1
        last = each.delivery.received_at
        if len(first) < MOST_SHOWN:
            first.append(each)
        if is_cut := counts.total() == MOST_REPLAYED:
            break
    return ReplayResult(counts, first, is_cut, last)


def readable(body: bytes) -> tuple[str, str]:
    """A body to be read, and what it is: JSON, text, or bytes in hex."""
    try:
        return pretty(parse_json(body)), "JSON"
    except (orjson.JSONDecodeError, RecursionError):
        pass
    try:
        return body.decode(), "text"
    except UnicodeDecodeError:
        return body.hex(" "), "bytes in hex"


_CHOICES: Final = frozenset(ReplayChoice.model_fields)


@dataclass(frozen=True, slots=True)
class RefusalGroup:
    """The refusals of one reason in the sample."""

    reason: str
    count: int
    first_at: datetime
    last_at: datetime
    addresses: int
    remedy: str


def grouped(rows: Sequence[Mapping[str, Any]]) -> list[RefusalGroup]:
    """The groups of refusals, the largest first; `rows` are newest first."""
    reasons = Counter(row["reason"] for row in rows)
    groups = []
    for reason, count in reasons.most_common():
        theirs = [row for row in rows if row["reason"] == reason]
        addresses = len({row["remote_address"] for row in theirs})
        remedy = REMEDIES.get(reason, "see docs/operations.md")
        groups.append(
            RefusalGroup(reason, count, theirs[-1]["rejected_at"], theirs[0]["rejected_at"], addresses, remedy)
        )
    return groups


@dataclass(frozen=True, slots=True)
class DeliveryPages:
    """The handlers of the pages."""

    console: Console

    def router(self) -> APIRouter:
        """The routes."""
        routes, require = self.console.router(), self.console.require
        reads, acts = [Depends(require(Role.READ))], [Depends(require(Role.ADMIN))]
        routes.get("/deliveries", dependencies=reads)(self.list_deliveries)
        routes.get("/deliveries/replay", dependencies=acts)(self.preview_replay)
        routes.post("/deliveries/replay", dependencies=acts)(self.apply_replay)
        routes.get("/deliveries/{event_id:path}", dependencies=reads)(self.show_delivery)
        routes.get("/refusals", dependencies=acts)(self.list_refusals)
        return routes

    async def list_deliveries(self, request: Request) -> Response:
        """Newest first."""
        parameters = parse_query(request, DeliveryParameters)
        items, next_cursor = await read_list(self.console.queries.deliveries, parameters, request.state.caller)
        return self.console.page(
            request,
            "deliveries.html",
            title="Deliveries",
            deliveries=items,
            next_cursor=next_cursor,
            outcomes=[str(each) for each in Outcome],
            choice={name: value for name, value in request.query_params.items() if value and name in _CHOICES},
        )

    async def preview_replay(self, request: Request) -> Response:
        """What a replay would do; changes nothing."""
        result = await collect(self.console.replay.dry_run(parse_query(request, ReplayChoice).chosen))
        fields = {name: value for name, value in request.query_params.items() if value}
        return self.console.page(request, "replay.html", title="Replay", result=result, fields=fields)

    async def apply_replay(self, request: Request) -> Response:
        """Replay them."""
        result = await collect(self.console.replay.apply(parse_query(request, ReplayChoice).chosen))
        notice = f"Replayed {result.summary}." if result.total else "There was none."
        if result.is_cut and result.last_received_at is not None:
            notice += f" There may be more: go on from {result.last_received_at:%Y-%m-%d %H:%M:%S} UTC."
        return self.console.redirect(request, _LIST, notice=notice)

    async def show_delivery(self, request: Request, event_id: str) -> Response:
        """What is known of it; for the role admin also its headers and its body."""
        caller: Caller = request.state.caller
        delivery = await read_one(self.console.queries, event_id, caller)
        evidence: dict[str, Any] = {"headers": None, "body": None, "kind": None}
        if caller.role.allows(Role.ADMIN) and delivery.body_pruned_at is None:
            body, kind = readable(delivery.body or b"")
            evidence = {"headers": delivery.headers or {}, "body": body, "kind": kind}
        return self.console.page(request, "delivery.html", title="Delivery", delivery=delivery, **evidence)

    async def list_refusals(self, request: Request) -> Response:
        """The newest refused deliveries, by reason."""
        rows = await self.console.rejections.newest(MOST_REJECTIONS)
        wanted = request.query_params.get("reason")
        return self.console.page(
            request,
            "refusals.html",
            title="Refusals",
            groups=grouped(rows),
            rows=[row for row in rows if wanted in (None, "", row["reason"])][:MOST_SHOWN],
            wanted=wanted,
            most=MOST_REJECTIONS,
        )
