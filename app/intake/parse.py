"""Turns a verified delivery into a report; pure."""

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
    body: bytes, headers: RawHeaders, *, header_id: str | None, endpoint_id: str | None, now: datetime
) -> Report:
    """What a delivery says, with the bytes as evidence. Never raises: what can't be read is kept as unreadable."""
    read = read_delivery(body, header_id=header_id)
    is_claim = read.kind == "generation" and read.generation is not None
    delivery = Delivery(
        event_id=read.event_id,
        event_type=read.event_type,
        endpoint_id=endpoint_id,
        received_at=now,
        body=body,
        headers=stored_headers(headers),
        kept_as=None if is_claim else _outcome_of(read),
        about=read.generation.id if read.generation is not None else None,
    )
    claim = read.generation if is_claim else None
    return Report(source=Source.WEBHOOK, reported_at=now, claim=claim, delivery=delivery)


def is_delivery(headers: RawHeaders, body: bytes) -> bool:
    """It has the form of a delivery, as far as can be told without its signature: a body, and not an encoded one."""
    encodings = [value.strip().lower() for name, value in headers if name == b"content-encoding"]
    return bool(body) and all(value in (b"", b"identity") for value in encodings)


def as_unreadable(report: Report) -> Report:
    """The same delivery as evidence only, for a claim that can't be recorded."""
    if report.delivery is None:
        return report
    return replace(report, claim=None, delivery=replace(report.delivery, kept_as=Outcome.UNREADABLE, about=None))


def stored_headers(headers: RawHeaders) -> dict[str, str]:
    """The headers that matter as evidence: content type, user agent, and those a signature is made of."""
    return {
        stored_name: value.decode("latin-1")
        for name, value in headers
        if (stored_name := _stored_name(name)) is not None
    }


@lru_cache(_FEW)  # the same few names come with every delivery, and strangers' names drive each other out
def _stored_name(name: bytes) -> str | None:
    return name.decode("latin-1") if name in _STORED_HEADERS or name.endswith(_ENDINGS) else None


def _outcome_of(read: DeliveryBody) -> Outcome:
    return Outcome.UNREADABLE if read.kind == "generation" else Outcome(read.kind)
