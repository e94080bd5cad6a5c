"""How polling stands, in words for the operator."""

from datetime import timedelta

from app.ratelimit.budget import Budget, describe_status
from tests.support.clock import NOON

KEY = "c0ffee"
FRESH = Budget(next_slot_at=NOON)


def test_a_budget_nobody_has_used_is_well() -> None:
    finding = describe_status(None, KEY, now=NOON, rate=5.0)
    assert (finding.name, finding.ok, finding.detail) == ("polling", True, "at most 5 requests per second")


def test_a_pause_is_well_and_tells_its_end() -> None:
    blocked = FRESH.rate_limited(NOON, retry_after=90, chance=0)
    finding = describe_status(blocked, KEY, now=NOON, rate=5.0)
    assert (finding.ok, finding.detail) == (True, "paused until 12:01:30 UTC, as Rivya asked (429)")
    assert "paused" not in describe_status(blocked, KEY, now=NOON + timedelta(seconds=90), rate=5.0).detail


def test_a_refused_key_tells_to_replace_it() -> None:
    finding = describe_status(
        FRESH.stopped(NOON, key=KEY, status=401, reason="api_key_expired"), KEY, now=NOON, rate=5.0
    )
    assert not finding.ok
    assert not finding.is_required
    assert "api_key_expired" in finding.detail
    assert "set a valid key" in finding.detail


def test_a_missing_scope_is_named() -> None:
    stopped = FRESH.stopped(NOON, key=KEY, status=403, reason="api_scope_denied")
    finding = describe_status(stopped, KEY, now=NOON, rate=5.0)
    assert "api_scope_denied" in finding.detail
    assert "generations:read" in finding.detail


def test_another_processes_key_is_no_concern_of_ours() -> None:
    stopped = FRESH.stopped(NOON, key="another", status=401, reason="api_key_revoked")
    assert describe_status(stopped, KEY, now=NOON, rate=5.0).ok
