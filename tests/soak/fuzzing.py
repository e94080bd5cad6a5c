"""Throws mutated deliveries at verifying and reading: nothing raises, nothing without a valid MAC is accepted."""

import hashlib
import hmac
import random
import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime

import orjson

from app.intake.translate import is_delivery, to_report
from app.rivya.calibration import calibrate
from app.rivya.signature import Verified, Verifier, parse_scheme, sign

SECRET = "whsec_0123456789abcdef0123456789abcdef"
NOW = datetime(2026, 5, 10, 12, tzinfo=UTC)
SCHEME = parse_scheme("timestamped")
SCRAPS = (
    b"\x00", b"\xff\xfe", b"\xed\xa0\x80", b"\\ud800", b"\\u0000", b"[" * 3000, b'{"a":' * 300, b"1e999", b"-0",
    b"9" * 400, b'"id":', b'"status":"succeeded"', b"null", b"t=", b",v1=", b"v1=", b"=" * 50, b",", b"",
    b'"type":"generation.failed"', b'"data":{}', b"NaN", b"}", b'"', b"\r\n", b"\xe2\x80\xae",
)  # fmt: skip
"""What parsers stumble over."""


@dataclass
class Fuzzed:
    """What so many cases came to."""

    cases: int = 0
    accepted: int = 0
    wrongly: int = 0
    """Accepted without a valid MAC, or refused with one."""
    slowest: float = 0.0
    """Seconds that the slowest case took."""


def fuzz(cases: int, *, seed: int) -> Fuzzed:
    """Raises whatever the code under test raises; it must raise nothing."""
    chance, verifier, result = random.Random(seed), Verifier(SCHEME, [SECRET]), Fuzzed()
    for number in range(cases):
        headers, body = _case(chance)
        started = time.perf_counter()
        verdict = verifier.verify(headers, body, NOW)
        is_delivery(headers, body)
        report = to_report(body, headers, header_id=None, endpoint_id=None, now=NOW)
        if number % 50 == 0:
            calibrate(headers, body, secrets=(SECRET,), now=NOW)
        result.slowest = max(result.slowest, time.perf_counter() - started)
        assert report.delivery is not None
        assert report.delivery.body == body
        is_accepted = isinstance(verdict, Verified)
        result.cases += 1
        result.accepted += is_accepted
        result.wrongly += is_accepted and not _is_genuine(headers, body)
    return result


def _case(chance: random.Random) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """A signed delivery, of which the body, the signature, both or nothing was altered after signing."""
    body = orjson.dumps(_event(chance))
    if chance.random() < 0.5:
        body = _mutated(body, chance)
    signed = sign(SCHEME, SECRET, body, timestamp=NOW, event_id="evt")
    headers = [(name.lower().encode(), value.encode()) for name, value in signed]
    what = chance.randrange(4)
    if what in (1, 3):
        body = _mutated(body, chance)
    if what in (2, 3):
        headers = [(name, _mutated(value, chance)) for name, value in headers]
    if chance.random() < 0.1:
        headers += headers
    return headers, body


def _event(chance: random.Random) -> dict[str, object]:
    generation = {"id": f"task_{chance.randrange(10)}", "status": chance.choice(["succeeded", "failed", "queued", "?"])}
    member = chance.choice(["data", "generation", "object"])
    return {"id": "evt_1", "type": chance.choice(["generation.succeeded", "ping", "x"]), member: generation}


def _mutated(value: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(value) + 1)
    match chance.randrange(4):
        case 0:
            return value[:at] + chance.choice(SCRAPS) + value[at:]
        case 1:
            return value[:at]
        case 2:
            return value[:at] + bytes([chance.randrange(256)]) + value[at + 1 :]
        case _:
            return value[:at] + value[at + chance.randrange(1, 9) :]


def _is_genuine(headers: list[tuple[bytes, bytes]], body: bytes) -> bool:
    """Computed apart from the code under test: the MAC over some `t`, a dot and the body stands in a header.

    Under whichever label: how Rivya names its versions is not documented, and a MAC can't fit by accident.
    """
    tokens = [token for _, value in headers for token in re.split(rb"[\s,;]+", value)]
    times = [token.removeprefix(b"t=") for token in tokens if token.startswith(b"t=")]
    made = [hmac.new(SECRET.encode(), at + b"." + body, hashlib.sha256).hexdigest().encode() for at in times]
    return any(mac in value.lower() for mac in made for _, value in headers)
