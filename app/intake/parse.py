"""Parses a verified delivery into a report; pure."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from functools import lru_cache

from app.ledger.models import Delivery, Outcome, Report, Source
from app.rivya.payloads import DeliveryBody, read_delivery

RawHeaders = Iterable[tuple[bytes, bytes]]

_STORED_HEADERS = frozenset({b"content-type", b"user-agent"})
_FEW = 64
_ENDINGS = (b"signature", b"signature-256", b"timestamp", b"-id")


def parse_delivery(
    body: bytes,
    headers: RawHeaders,
    *,
    header_id: str | None,
    endpoint_id: str | None,
    now: datetime,
    may_be_test: bool = False,
    forgotten_before: datetime | None = None,
) -> Report:
    """The report of a delivery, with its bytes as evidence. Never raises: an unreadable body is recorded as such.

    `may_be_test`: if no generation with its id is known, it is the test delivery that was requested.
    `forgotten_before`: what was settled before may have been pruned, so an older claim makes no generation anew.
    """
    read = read_delivery(body, header_id=header_id)
    is_claim = read.kind == "generation" and read.generation is not None
    claimed_at = None if read.generation is None else read.generation.updated_at or read.generation.created_at
    is_old = claimed_at is not None and forgotten_before is not None and claimed_at < forgotten_before
    if_unknown = Outcome.TEST if may_be_test else Outcome.STALE if is_old else None
    delivery = Delivery(
        event_id=read.event_id,
        event_type=read.event_type,
        endpoint_id=endpoint_id,
        received_at=now,
        body=body,
        headers=stored_headers(headers),
        stored_outcome=if_unknown if is_claim else _outcome_of(read),
        mentioned_id=read.generation.id if read.generation is not None else None,
    )
    claim = read.generation if is_claim else None
    return Report(source=Source.WEBHOOK, reported_at=now, claim=claim, delivery=delivery)


def is_delivery(headers: RawHeaders, body: bytes) -> bool:
    """Whether the request has the form of a delivery, its signature aside: a body, without a Content-Encoding."""
    encodings = [value.strip().lower() for name, value in headers if name == b"content-encoding"]
    return bool(body) and all(value in (b"", b"identity") for value in encodings)


def as_unreadable(report: Report) -> Report:
    """The same delivery without its claim, as evidence only."""
    if report.delivery is None:
        return report
    return replace(
        report, claim=None, delivery=replace(report.delivery, stored_outcome=Outcome.UNREADABLE, mentioned_id=None)
    )


def stored_headers(headers: RawHeaders) -> dict[str, str]:
    """The headers stored as evidence: content type, user agent, and those of the signature."""
    return {
        stored_name: value.decode("latin-1")
        for name, value in headers
        if (stored_name := _stored_name(name)) is not None
    }


@lru_cache(_FEW)  # Rivya sends the same few names; the bound limits what other senders can store here
def _stored_name(name: bytes) -> str | None:
    return name.decode("latin-1") if name in _STORED_HEADERS or name.endswith(_ENDINGS) else None


def _outcome_of(read: DeliveryBody) -> Outcome:
    return Outcome.UNREADABLE if read.kind == "generation" else Outcome(read.kind)
