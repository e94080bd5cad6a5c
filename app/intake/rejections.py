"""GET /api/v1/rejections: the newest refused deliveries and the reasons, for admin; no bodies are stored."""

import collections
import hashlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Annotated, Any, Literal

import structlog
from fastapi import APIRouter, Depends, Query
from prometheus_client import Counter
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Column, Index, Integer, Table, Text, delete, func, insert, select

from app.core.auth import Access, Caller, Role
from app.core.database import Database, Id, UtcDateTime, metadata
from app.core.records import uuid7

log = structlog.stdlib.get_logger(__name__)


REFUSALS = Counter("receiver_refusals", "Deliveries refused, by reason.", ["reason"])

MALFORMED: Mapping[str, str] = MappingProxyType(
    {
        "too_large": "larger than RECEIVER_MAX_BODY_BYTES: raise it",
        "not_a_delivery": "with a Content-Encoding, or without a body: let the proxy pass bodies on unchanged",
    }
)
"""The reasons that say nothing about the signature, with the defect and its remedy."""

_PER_FLUSH = 20
_MOST_STORED = 1000
_SECONDS_BETWEEN_FLUSHES = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """One delivery that was not accepted."""

    reason: str
    rejected_at: datetime
    endpoint_id: str | None
    body: bytes
    header_names: Sequence[bytes]
    remote_address: str | None


class Rejections:
    """Counts rejections and keeps a sample in memory; `run_once` logs the counts and stores the sample."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.on_rejected: Callable[[datetime], None] | None = None
        """Called with the time of each rejection."""
        self._sample: deque[Rejection] = deque(maxlen=_PER_FLUSH)
        self._counts: collections.Counter[str] = collections.Counter()

    def record(self, rejection: Rejection) -> None:
        """Count it, and put it into the sample, in place of the oldest if that is full. Does no I/O."""
        REFUSALS.labels(rejection.reason).inc()
        self._counts[rejection.reason] += 1
        if self.on_rejected is not None:
            self.on_rejected(rejection.rejected_at)
        self._sample.append(rejection)

    async def newest(self, most: int) -> list[dict[str, Any]]:
        """Up to `most` stored rejections, newest first, header names as a list. Raises `DatabaseUnavailable`."""
        async with self._database.read() as connection:
            rows = await connection.execute(select(rejections).order_by(rejections.c.id.desc()).limit(most))
            return [{**row, "header_names": row["header_names"].split(",")} for row in rows.mappings()]

    async def run_once(self) -> float:
        """Log the counts, store the sample, delete all but the newest 1,000; returns the seconds until the next run.

        Raises `DatabaseUnavailable`."""
        if not self._counts:
            return _SECONDS_BETWEEN_FLUSHES
        log.warning("deliveries.refused", **self._counts)
        self._counts.clear()
        rows = [_row(rejection) for rejection in self._sample]
        self._sample.clear()
        stored = select(rejections.c.id).order_by(rejections.c.id.desc()).limit(_MOST_STORED).subquery()
        oldest = select(func.min(stored.c.id)).scalar_subquery()
        async with self._database.transaction() as connection:
            await connection.execute(insert(rejections), rows)
            await connection.execute(delete(rejections).where(rejections.c.id < oldest))
        return _SECONDS_BETWEEN_FLUSHES


def _row(rejection: Rejection) -> dict[str, Any]:
    names = sorted({name.decode("latin-1")[:100] for name in rejection.header_names})
    return {
        "id": str(uuid7(rejection.rejected_at)),
        "rejected_at": rejection.rejected_at,
        "reason": rejection.reason,
        "endpoint_id": rejection.endpoint_id,
        "size": len(rejection.body),
        "header_names": ",".join(names[:50]).replace("\x00", ""),
        "remote_address": rejection.remote_address,
        "digest": hashlib.sha256(rejection.body).hexdigest(),
    }


class RejectionView(BaseModel):
    """One delivery that was not accepted."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "0196b9a4-3f00-7d0e-8a51-2f3b6c9d1e70",
                    "rejected_at": "2026-05-11T00:00:00Z",
                    "reason": "signature_mismatch",
                    "endpoint_id": None,
                    "size": 512,
                    "header_names": ["content-type", "host", "rivya-signature"],
                    "remote_address": "203.0.113.9",
                    "digest": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                }
            ]
        }
    )

    id: str
    rejected_at: datetime
    reason: str = Field(description="the error code in the answer to its sender")
    endpoint_id: str | None = Field(description="set when it came to the secret path of an endpoint of ours")
    size: int = Field(description="bytes")
    header_names: list[str]
    remote_address: str | None
    digest: str = Field(description="SHA-256 of the body, hex")


class RejectionsView(BaseModel):
    """A bounded sample, newest first: the newest 1,000 at most are kept, of each second the newest 20."""

    object: Literal["list"] = "list"
    data: list[RejectionView]


def router(sample: Rejections, access: Access) -> APIRouter:
    """The route."""
    routes = APIRouter(prefix="/api/v1", tags=["deliveries"])

    @routes.get("/rejections", summary="Refused deliveries")
    async def list_rejections(
        _: Annotated[Caller, Depends(access.require(Role.ADMIN))],
        limit: Annotated[int, Query(ge=1, le=1000, description="how many at most")] = 100,
    ) -> RejectionsView:
        """The newest refused deliveries: the reason, and what may show where they came from."""
        rows = await sample.newest(limit)
        return RejectionsView(data=[RejectionView(**row) for row in rows])

    return routes


rejections = Table(
    "rejections",
    metadata,
    Column("id", Id, primary_key=True),
    Column("rejected_at", UtcDateTime, nullable=False),
    Column("reason", Text, nullable=False),
    Column("endpoint_id", Text, comment="set when it came to the secret path of an endpoint of ours"),
    Column("size", Integer, nullable=False, comment="bytes"),
    Column("header_names", Text, nullable=False, comment="comma separated"),
    Column("remote_address", Text),
    Column("digest", Text, nullable=False, comment="SHA-256 of the body, hex"),
    Index("ix_rejections_rejected_at", "rejected_at"),
)
