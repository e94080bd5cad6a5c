"""Compares what was answered with what is recorded and what Rivya charged; says what is missing, doubled or wrong."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select

from app.core.database import Database
from app.ledger.tables import deliveries, generations, polls, transitions
from app.sandbox.state import Sandbox
from app.submission.store import submissions
from tests.soak.account import Account
from tests.support.run_counts import RunCounts, compared, delivered_by

TERMINAL = ("succeeded", "failed")
Rows = Sequence[dict[str, Any]]


@dataclass
class Verdict:
    """What is not as it must be; empty lists when every promise was kept."""

    missing: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    recorded: int = 0
    """Deliveries in the database, each as often as it came."""
    charged: int = 0
    missed: int = 0
    """Generations that a poll settled."""

    def counts(self, account: Account, sandbox: Sandbox, *, faults: int) -> RunCounts:
        """The same as numbers."""
        sent, accepted = delivered_by(sandbox.sender.log)
        came = account.sent.total() + sent.total(), account.accepted.total() + accepted.total()
        return RunCounts(faults, *came, self.recorded, len(self.missing), len(self.doubled), len(self.wrong))

    @property
    def is_clean(self) -> bool:
        """Nothing lost, nothing twice, nothing false."""
        return not (self.missing or self.doubled or self.wrong)


async def read_all(database: Database) -> dict[str, Rows]:
    """The tables that are compared, by name."""
    async with database.read() as connection:
        return {
            table.name: [dict(row) for row in (await connection.execute(select(table))).mappings()]
            for table in (deliveries, generations, polls, transitions, submissions)
        }


def audit(tables: dict[str, Rows], account: Account, sandbox: Sandbox) -> Verdict:
    """Everything that can be compared, once nothing is under way any more."""
    verdict = Verdict(wrong=list(account.wrong), recorded=sum(row["attempts"] for row in tables["deliveries"]))
    _deliveries(verdict, tables["deliveries"], account, sandbox)
    _histories(verdict, tables["generations"], tables["transitions"])
    _outcomes(verdict, tables["generations"], account, sandbox)
    _polls(verdict, tables["generations"], tables["polls"])
    _submissions(verdict, tables["submissions"], account, sandbox)
    return verdict


def _deliveries(verdict: Verdict, rows: Rows, account: Account, sandbox: Sandbox) -> None:
    attempts = {row["event_id"]: row["attempts"] for row in rows}
    if len(attempts) != len(rows):
        verdict.doubled.append("an event has two rows")
    sent, accepted = delivered_by(sandbox.sender.log)
    missing, doubled = compared(account.sent + sent, account.accepted + accepted, attempts)
    verdict.missing += missing
    verdict.doubled += doubled


def _histories(verdict: Verdict, known: Rows, steps: Rows) -> None:
    histories: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for step in sorted(steps, key=lambda step: (step["generation_id"], step["number"])):
        histories[step["generation_id"]].append(step)
    for row in known:
        history, before = histories[row["id"]], None
        for number, step in enumerate(history, 1):
            if step["number"] != number or step["from_status"] != before or before in TERMINAL:
                verdict.wrong.append(f"{row['id']}: step {step['number']} {step['from_status']}→{step['to_status']}")
            before = step["to_status"]
        if before != row["status"] or row["last_number"] != len(history):
            verdict.wrong.append(f"{row['id']} is {row['status']}, its history says {before}")


def _outcomes(verdict: Verdict, rows: Rows, account: Account, sandbox: Sandbox) -> None:
    recorded = {row["id"]: row for row in rows}
    truth = dict(account.truth)
    truth |= {generation.id: generation.status for generation in sandbox.generations.by_id.values()}
    for generation_id, status in truth.items():
        row = recorded.get(generation_id)
        if row is None:
            verdict.missing.append(f"{generation_id} is not recorded")
        elif row["status"] != status:
            verdict.wrong.append(f"{generation_id} is {status}, recorded as {row['status']}")
    verdict.missed = sum(row["settled_by"] == "poll" for row in rows)


def _polls(verdict: Verdict, rows: Rows, polled: Rows) -> None:
    open_ones = {row["id"] for row in rows if row["settled_at"] is None}
    for generation_id in open_ones ^ {row["generation_id"] for row in polled}:
        verdict.wrong.append(f"{generation_id} is settled and polled, or open and not polled")


def _submissions(verdict: Verdict, rows: Rows, account: Account, sandbox: Sandbox) -> None:
    charges = sandbox.accounts.charges_by_key()
    stored = {row["idempotency_key"]: row for row in rows}
    verdict.charged = sum(charge["times"] for charge in charges.values())
    for key, charge in charges.items():
        if charge["times"] != 1:
            verdict.doubled.append(f"{key} was paid {charge['times']} times")
        if key not in stored:
            verdict.missing.append(f"{key} was paid and never written down")
    _stored(verdict, stored, charges, account)


def _stored(verdict: Verdict, stored: dict[str, Any], charges: dict[str, Any], account: Account) -> None:
    for key, row in stored.items():
        if row["state"] != "accepted":
            verdict.missing.append(f"{key} is {row['state']}: {row['last_error']}")
        elif charges.get(key, {}).get("generation_ids") != [row["generation_id"]]:
            verdict.wrong.append(f"{key} is {row['generation_id']}, paid for {charges.get(key)}")
    for key, generation_id in account.created.items():
        if stored.get(key, {}).get("generation_id") != generation_id:
            verdict.wrong.append(f"{key} was answered with {generation_id}, recorded {stored.get(key)}")
