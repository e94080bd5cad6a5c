"""Throws mutated bytes at what reads and verifies them: nothing raises or takes long, only valid MACs are accepted."""

import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from app.core.records import dump_json
from app.intake.webhook import is_delivery, parse_delivery
from app.rivya import endpoint_payload, errors, payloads
from app.rivya.payloads import PayloadUnreadable, read_generation, read_json
from app.rivya.scheme_detection import Effort, detect_scheme
from app.rivya.signature import Verified, Verifier
from tests.soak.covering import Covering
from tests.soak.macs import SECRET, is_genuine
from tests.soak.mutating import NOW, SCHEMES, Case, Corpus

MOST_SECONDS = 0.05
"""For each case, and for each 64 KiB of it."""
_TRACED = 20
_CALIBRATED = 8
_READ = 4
_AGAIN = 5
_VERIFIERS = {family: Verifier(scheme, [SECRET]) for family, scheme in SCHEMES.items()}
_READERS: tuple[Callable[[bytes], object], ...] = (
    read_generation,
    payloads.read_models,
    payloads.read_credits,
    endpoint_payload.read_endpoint_list,
    lambda body: endpoint_payload.read_rotation(body, "whend_1"),
    lambda body: endpoint_payload.read_endpoint(read_json(body)),
    lambda body: errors.read_error(400, body, {"retry-after": body[:40].decode("latin-1")}),
    lambda body: errors.read_date({"date": body[:40].decode("latin-1")}),
)


@dataclass
class Fuzzed:
    """What so many cases came to."""

    cases: int = 0
    accepted: int = 0
    wrongly: int = 0
    """Accepted without a valid MAC, or refused with one."""
    slowest: float = 0.0
    """The share of its time that the slowest case took; above 1 it took too long."""
    explored: int = 0
    """Cases that went where none had gone, and were mutated further."""
    steps: int = 0
    """From line to line in the modules under test, that were ever taken."""
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Cases per second."""
        return self.cases / self.seconds if self.seconds else 0.0


def fuzz(cases: int, *, seed: int) -> Fuzzed:
    """Raises whatever the code under test raises; it must raise nothing."""
    corpus, covering, result = Corpus(random.Random(seed)), Covering(), Fuzzed()
    started = time.monotonic()
    for number in range(cases):
        case = corpus.case()
        if number % _TRACED == 0 and covering.takes_new_steps(partial(_everything, case)):
            corpus.keep(case)
            result.explored += 1
        is_accepted, share = _timed(case, number)
        result.cases += 1
        result.accepted += is_accepted
        result.wrongly += is_accepted < case.is_good
        if is_accepted and not case.is_good:
            result.wrongly += not is_genuine(case.family, case.headers, case.body, NOW)
        result.slowest = max(result.slowest, share)
    result.steps = len(covering.steps)
    result.seconds = time.monotonic() - started
    return result


def _timed(case: Case, number: int) -> tuple[bool, float]:
    """Whether it was accepted, and the share of its time that it took: the least of a few, if it took long once."""
    allowed = MOST_SECONDS * (1 + len(case.body) // 65_536)
    shares: list[float] = []
    while True:
        started = time.perf_counter()
        is_accepted = _tried(case, number)
        shares.append((time.perf_counter() - started) / allowed)
        if shares[-1] < 0.2 or len(shares) == _AGAIN:
            return is_accepted, min(shares)


def _tried(case: Case, number: int) -> bool:
    """Whether the delivery is accepted."""
    verdict = _VERIFIERS[case.family].verify(case.headers, case.body, NOW)
    is_delivery(case.headers, case.body)
    report = parse_delivery(case.body, case.headers, header_id="evt", endpoint_id=None, now=NOW)
    assert report.delivery is not None
    assert report.delivery.body == case.body
    if report.claim is not None:
        text = dump_json([report.claim.object, report.claim.id, report.claim.model])
        assert rb"\u0000" not in text.replace(rb"\\", b"")  # a backslash before "u0000" is none
    if number % _CALIBRATED == 0:
        proof = detect_scheme(case.headers, case.body, secrets=(SECRET,), now=NOW, effort=Effort())
        assert proof is None or not case.is_forged, (proof, case)
    if number % _READ == 0:
        _read(case.body)
    return isinstance(verdict, Verified)


def _everything(case: Case) -> None:
    _tried(case, 0)


def _read(body: bytes) -> None:
    for read in _READERS:
        with suppress(PayloadUnreadable):
            read(body)
