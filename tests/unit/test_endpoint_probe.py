"""A probe is answered to whom it is sent by a process of ours, and believed from nobody else."""

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from app.endpoint.probe import HEADER, Probe, ProbeKey, changed_headers

NOW = datetime(2026, 5, 10, 12, tzinfo=UTC)
NONCE = "0123456789abcdef" * 2
OURS, THEIRS = ProbeKey("rvya_sk_ours"), ProbeKey("rvya_sk_theirs")


def arrived(probe: Probe) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in probe.headers.items()]


def answered(key: ProbeKey = OURS, *, at: datetime = NOW) -> bytes | None:
    probe = OURS.make(NONCE, NOW)
    return key.answer(arrived(probe), probe.body, at)


def test_an_answer_tells_what_arrived_and_proves_itself() -> None:
    probe, answer = OURS.make(NONCE, NOW), answered()
    assert answer is not None
    result = OURS.read(probe, answer)
    assert result is not None
    assert result["size"] == len(probe.body)
    assert changed_headers(probe, result) == []


@pytest.mark.parametrize("late", [301, -301])
def test_a_probe_is_good_for_five_minutes(late: int) -> None:
    assert answered(at=NOW + timedelta(seconds=late)) is None


def test_nobody_else_is_answered() -> None:
    assert answered(THEIRS) is None
    assert OURS.answer([], b"", NOW) is None
    assert OURS.answer([(HEADER.encode(), b"1.2.3")], b"", NOW) is None
    probe = OURS.make(NONCE, NOW)
    assert OURS.answer([*arrived(probe), *arrived(probe)], probe.body, NOW) is None


@pytest.mark.parametrize("answer", [b"", b"<html>", b"[]", b'{"probe": 1}', b'{"probe": {}}'])
def test_what_somebody_else_answers_is_not_believed(answer: bytes) -> None:
    assert OURS.read(OURS.make(NONCE, NOW), answer) is None


def test_an_answer_of_another_account_or_to_another_probe_is_not_believed() -> None:
    answer = answered()
    assert answer is not None
    assert THEIRS.read(OURS.make(NONCE, NOW), answer) is None
    assert OURS.read(OURS.make("f" * 32, NOW), answer) is None


@pytest.mark.parametrize("proof", ["\ud800", 7, None])
def test_no_proof_makes_it_raise(proof: Any) -> None:
    answer = orjson.dumps({"probe": {"sha256": "0", "proof": proof if proof != "\ud800" else "é"}})
    assert OURS.read(OURS.make(NONCE, NOW), answer) is None


def test_headers_that_were_lost_or_changed_are_named() -> None:
    probe = OURS.make(NONCE, NOW)
    headers = [(name, b"text/plain" if name == b"content-type" else value) for name, value in arrived(probe)]
    answer = OURS.answer(headers, probe.body, NOW)
    assert answer is not None
    result = OURS.read(probe, answer)
    assert result is not None
    assert changed_headers(probe, result) == ["content-type"]
    assert changed_headers(probe, {}) == list(probe.headers)
