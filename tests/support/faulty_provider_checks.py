"""What has to be so once a lying Rivya behaves: the record is the truth, callbacks come, each gap was counted."""

from datetime import datetime

from app.ledger.tables import generations, transitions
from app.submission.store import submissions
from tests.support.faulty_provider_metrics import Counted, counted_polls, left_open, missed, polls, refusals
from tests.support.faulty_provider_service import FaultyProviderService

RANK = {None: 0, "queued": 1, "processing": 2, "succeeded": 3, "failed": 3}


async def is_the_truth(rivya: FaultyProviderService, allowed: dict[str, datetime]) -> None:
    """Our record is what really happened, known in time, by a legal history; every create is resolved and paid once."""
    rows = {row["id"]: row for row in await rivya.rows(generations)}
    lost = [generation_id for generation_id, row in rows.items() if row["tracking"] == "lost"]
    rivya.lost = lost
    for generation_id in lost:  # Rivya said so three times in ten minutes: only a callback can tell now
        assert rivya.count_not_found(generation_id) >= 3
        del rows[generation_id]
    truth = {known: one.status for known, one in rivya.sandbox.generations.by_id.items() if known not in lost}
    assert {generation_id: row["status"] for generation_id, row in rows.items()} == truth
    assert {known: row["settled_at"] for known, row in rows.items() if row["settled_at"] > allowed[known]} == {}
    last: dict[str, tuple[int, str | None]] = {}
    for step in await rivya.rows(transitions):
        number, before = last.get(step["generation_id"], (0, None))
        assert (step["number"], step["from_status"]) == (number + 1, before)
        assert RANK[before] < RANK[step["to_status"]]
        last[step["generation_id"]] = (step["number"], step["to_status"])
    for row in await rivya.rows(submissions):
        charge = rivya.sandbox.accounts.charges_by_key().get(row["idempotency_key"])
        assert (row["state"], charge and charge["times"]) in (("accepted", 1), ("rejected", None))


async def endpoint_serves(rivya: FaultyProviderService) -> None:
    """There is one active endpoint, and what it delivers is verified."""
    [endpoint] = [known for known in rivya.ours() if known.status == "active"]
    await rivya.sandbox.publisher.send_test(endpoint)
    assert rivya.carrier.posted[-1].status == 200


def every_gap_was_counted(rivya: FaultyProviderService, counted: Counted) -> None:
    """The counters moved by what the sandbox records as caused: exactly, but for repairs (one may mend two hurts)."""
    sandbox, posted = rivya.sandbox, rivya.carrier.posted
    assert counted.since("callbacks_missed").total() == missed(sandbox, posted, rivya.ended_at)
    assert counted.since("refusals") == refusals(sandbox, posted)
    assert counted_polls(counted.since("polls")) == polls(sandbox)
    open_ones, counted_submissions = left_open(sandbox), counted.since("submissions")
    assert (counted_submissions["unknown"], counted_submissions["resolved"]) == (len(open_ones), len(open_ones))
    repairs = counted.since("endpoint_repairs").total()
    is_spoiled = any(called.fault for called in sandbox.calls.recent if called.route.startswith("webhooks."))
    assert counted.since("generations_lost").total() == len(rivya.lost)
    assert repairs >= 1 if rivya.hurts else repairs == 0 or is_spoiled
