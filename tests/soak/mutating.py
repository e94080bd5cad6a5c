"""Makes cases for fuzzing out of what Rivya documents: bytes altered before they are signed, after it, or both."""

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import orjson

from app.rivya.schemes import parse_scheme
from app.rivya.signature import sign
from tests.soak.macs import SECRET, Headers

NOW = datetime(2026, 5, 10, 12, tzinfo=UTC)
SCHEMES = {name: parse_scheme(name) for name in ("timestamped", "standard-webhooks", "timestamp-header", "body")}
SCRAPS = (
    b"\x00", b"\xff\xfe", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\\ud800", b"\\u0000", b"[" * 3000, b'{"a":' * 300,
    b"1e999", b"1e400", b"-0", b"9" * 400, b'"id":', b'"status":"succeeded"', b"null", b"true", b"t=", b",v1=", b"v1=",
    b"=" * 50, b",", b";", b"v1,", b"sha256=", b'"type":"generation.failed"', b'"type":"test"', b'"data":{}', b"NaN",
    b"}", b"]", b'"', b"\r\n", b"\xe2\x80\xae", b'"created_at":"9999-12-31T23:59:59-23:59"', b'"api_version"',
    b" " * 300, b'"signing_secret":"whsec_a"', b'"error":{"code":"rate_limited"}', b"0001-01-01", b"i" * 201,
    b"\\\\u0000",
)  # fmt: skip
"""What parsers stumble over."""
LONGEST = 64 * 1024
_DEEP = 1024 * 1024
_STAMPS = {
    "0": True, "299": True, "-299": True, "301": False, "-301": False, "ms": True, "iso": True, "?": False, "": False,
}  # fmt: skip
_GENERATION = {"id": "task_1", "status": "succeeded", "model": "z-image", "reserved_credits": 1, "final_credits": 1,
    "created_at": "2026-05-10T00:00:00.000Z", "result": {"primary_url": "https://m/1", "urls": []},
    "error": None}  # fmt: skip
_ENDPOINT = {"id": "whend_1", "object": "webhook_endpoint", "url": "https://r/rivya/webhook/k", "status": "active",
    "event_types": ["generation.succeeded"], "signing_secret": "whsec_b", "failure_count": 0}  # fmt: skip
SEEDS = tuple(
    orjson.dumps(value)
    for value in (
        *({"id": "evt_1", "type": "generation.succeeded", "created_at": "2026-05-10T00:00:00Z", member: _GENERATION}
          for member in ("data", "generation", "x")),
        {"id": "evt_2", "type": "generation.failed", "data": {"object": {**_GENERATION, "status": "failed"}}},
        {"id": "evt_3", "type": "ping"}, _GENERATION, _ENDPOINT, {"object": "list", "data": [_ENDPOINT]},
        {"data": [{"id": "z-image", "category": "image"}]}, {"current_credits": 123.5},
        {"error": {"code": "rate_limited", "message": "slow down", "requestId": "req_1"}},
    )
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Case:
    """One delivery, and what is known of it without looking."""

    family: str
    headers: Headers
    body: bytes
    is_good: bool
    """Nothing was altered after signing, and it was signed within the tolerance."""
    is_forged: bool
    """Its body was altered after signing, and its headers were not."""


class Corpus:
    """Bodies, beginning with the documented ones, to which those are added that showed something new."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._bodies = list(SEEDS)

    def keep(self, case: Case) -> None:
        """It showed something new."""
        self._bodies.append(case.body[:LONGEST])

    def case(self) -> Case:
        """One more case."""
        chance = self._chance
        body = chance.choice(self._bodies)
        for _ in range(chance.choice((0, 1, 1, 2, 4))):
            body = self._mutated(body)[:LONGEST]
        if chance.random() < 0.0005:
            body += chance.choice((b"[", b'{"a":', b"\x00")) * (_DEEP // 5)
        family, offset = chance.choice(list(SCHEMES)), chance.choice(list(_STAMPS))
        signed = sign(SCHEMES[family], SECRET, body, timestamp=_stamp(offset), event_id="evt")
        headers = [(name.lower().encode(), value.encode()) for name, value in signed]
        what, sent, sent_headers = chance.randrange(4), body, headers
        if what in (1, 3):
            sent = self._mutated(body)
        if what in (2, 3):
            sent_headers = [(name, self._mutated(value)) for name, value in headers]
        if chance.random() < 0.1:
            sent_headers = sent_headers + sent_headers if chance.random() < 0.5 else sent_headers[1:]
        is_good = sent == body and sent_headers == headers and (_STAMPS[offset] or family == "body")
        return Case(family, sent_headers, sent, is_good=is_good, is_forged=sent != body and sent_headers == headers)

    def _mutated(self, value: bytes) -> bytes:
        chance = self._chance
        at = chance.randrange(len(value) + 1)
        end = min(len(value), at + chance.randrange(1, 17))
        match chance.randrange(6):
            case 0:
                return value[:at] + chance.choice(SCRAPS) + value[at:]
            case 1:
                return value[:at]
            case 2:
                return value[:at] + bytes([chance.randrange(256)]) + value[at + 1 :]
            case 3:
                return value[:end] + value[at:end] * chance.randrange(30) + value[end:]
            case 4:
                return value[:at] + chance.choice((b"", *SCRAPS)) + value[end:]
            case _:
                other = chance.choice(self._bodies)
                return value[:at] + other[chance.randrange(len(other) + 1) :]


def _stamp(offset: str) -> datetime | str:
    if offset in ("?", ""):
        return offset
    if offset == "ms":
        return str(int(NOW.timestamp() * 1000))
    return NOW.isoformat() if offset == "iso" else NOW + timedelta(seconds=int(offset))
