"""The submissions table and its transactions: begin, claim, conclude; each step is one short transaction."""

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import CheckConstraint, Column, Integer, LargeBinary, Table, Text, bindparam, select, text, true, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.auth import Caller
from app.core.database import Database, Id, UtcDateTime, enum_check, metadata, partial_index
from app.core.records import uuid7
from app.ledger.callbacks import insert_callback
from app.submission.models import Create, State, Submission, from_row
from app.submission.outcome import Outcome
from app.tokens import spending

# A create is written here before it is sent.

submissions = Table(
    "submissions",
    metadata,
    Column("id", Id, primary_key=True),
    Column("idempotency_key", Id, nullable=False, unique=True),
    Column("request_hash", Text, nullable=False, comment="SHA-256 of the body, hex"),
    Column("request", LargeBinary, nullable=False, comment="the body, as it is sent"),
    Column("state", Text, nullable=False),
    Column("is_final", Integer, nullable=False, comment="1: the answer is given again; 0: asking again sends again"),
    Column("response_status", Integer),
    Column("response", LargeBinary),
    Column("response_retry_after", Integer, comment="seconds"),
    Column("generation_id", Id),
    Column("submitted_by", Text, comment="name of the caller's token"),
    Column("callback_url", Text, comment="where the caller wants to be told of the outcome"),
    Column("traceparent", Text, comment="of the caller's request"),
    Column("attempts", Integer, nullable=False, comment="numbers the attempts: a late one can't undo a later one"),
    Column("retries", Integer, nullable=False, comment="by the background, since a caller last sent it"),
    Column("sent_at", UtcDateTime, nullable=False, comment="when a caller last sent it"),
    Column("next_attempt_at", UtcDateTime, comment="when a background retry is due; null: never"),
    Column("last_error", Text),
    Column("created_at", UtcDateTime, nullable=False),
    Column("resolved_at", UtcDateTime),
    enum_check("state", State),
    CheckConstraint("is_final IN (0, 1)", name="is_final"),
    CheckConstraint("is_final = 0 OR state IN ('accepted', 'rejected')", name="final_when_answered"),
    CheckConstraint("(state = 'accepted') = (generation_id IS NOT NULL)", name="accepted_has_generation"),
    CheckConstraint("(next_attempt_at IS NULL) = (state IN ('accepted', 'rejected'))", name="retried_while_open"),
    partial_index("ix_submissions_generation_id", "generation_id", where=text("generation_id IS NOT NULL")),
    partial_index("ix_submissions_next_attempt_at", "next_attempt_at", where=text("next_attempt_at IS NOT NULL")),
    partial_index("ix_submissions_created_at", "created_at", where=text("next_attempt_at IS NOT NULL")),
)

LEASE = timedelta(seconds=60)
"""How long an attempt has a submission for itself: longer than a create and its recording may take."""

_t = submissions.c
OF_GENERATION = select(submissions).where(_t.generation_id == bindparam("generation_id"))
"""The submissions that made a generation: one, unless Rivya gave the same id again."""

Price = Callable[[Caller, str], Awaitable[float]]
"""Returns the credits to reserve for a create of this model."""


async def no_price(_caller: Caller, _model: str) -> float:
    """Nothing to reserve, for callers without limits."""
    return 0.0


class SubmissionRepository:
    """The repository of submissions. Every method raises `DatabaseUnavailable`."""

    def __init__(self, database: Database, *, price: Price = no_price) -> None:
        self._database = database
        self._price = price

    async def begin(self, create: Create, key: str, caller: Caller, *, now: datetime) -> tuple[Submission, bool]:
        """Store a create and claim it: (the new submission, True), or (the stored one with this key, False).

        Reserves its credits. Raises `TokenLimitReached`, `TokenRateLimited`: then nothing is stored.
        """
        row: dict[str, Any] = {
            "id": str(uuid7(now)),
            "idempotency_key": key,
            "request_hash": create.digest,
            "request": create.body,
            "state": State.SENDING,
            "is_final": 0,
            "submitted_by": caller.name,
            "traceparent": create.traceparent,
            "callback_url": create.callback_url,
            "attempts": 1,
            "retries": 0,
            "sent_at": now,
            "next_attempt_at": now + LEASE,
            "created_at": now,
        }
        new = self._database.insert(submissions).values(row).on_conflict_do_nothing(index_elements=[_t.idempotency_key])
        credits_needed = await self._price(caller, create.model)
        async with self._database.transaction() as connection:
            is_new = (await connection.execute(new)).rowcount == 1
            if is_new:
                await spending.reserve(connection, caller, row["id"], credits_needed, now=now)
            result = await connection.execute(select(submissions).where(_t.idempotency_key == key))
            return from_row(result.mappings().one()), is_new

    async def find(self, submission_id: str) -> Submission:
        """The submission with this id, which must exist."""
        async with self._database.read() as connection:
            result = await connection.execute(select(submissions).where(_t.id == submission_id))
            return from_row(result.mappings().one())

    async def of_generation(self, generation_id: str) -> Submission | None:
        """The submission that made this generation; None if it was not submitted here."""
        async with self._database.read() as connection:
            row = (await connection.execute(OF_GENERATION, {"generation_id": generation_id})).mappings().first()
        return None if row is None else from_row(row)

    async def claim_again(
        self, known: Submission, create: Create, caller: Caller, *, now: datetime
    ) -> Submission | None:
        """Claim a submission whose rejection was not final; None if another caller was faster.

        `create` is the same as before; it is stored again because the stored body may have been emptied.
        """
        change = (
            update(submissions)
            .where(_t.id == known.id, _t.attempts == known.attempts, _t.state == State.REJECTED, _t.is_final == 0)
            .values(
                request=create.body,
                state=State.SENDING,
                submitted_by=caller.name,
                traceparent=create.traceparent,
                attempts=_t.attempts + 1,
                retries=0,
                sent_at=now,
                next_attempt_at=now + LEASE,
                resolved_at=None,
                response_status=None,
                response=None,
                response_retry_after=None,
            )
            .returning(*_t)
        )
        credits_needed = await self._price(caller, create.model)
        async with self._database.transaction() as connection:
            row = (await connection.execute(change)).mappings().one_or_none()
            if row is not None:
                await spending.reserve(connection, caller, known.id, credits_needed, now=now)
        return from_row(row) if row is not None else None

    async def is_due(self, *, now: datetime) -> bool:
        """True if a submission is due for a retry."""
        async with self._database.read() as connection:
            result = await connection.execute(select(true()).where(_t.next_attempt_at <= now).limit(1))
            return result.first() is not None

    async def claim_due(self, *, now: datetime) -> Submission | None:
        """Claim the submission whose retry has been due for the longest time; None if none is due or free."""
        due = select(_t.id).where(_t.next_attempt_at <= now).order_by(_t.next_attempt_at).limit(1)
        async with self._database.transaction() as connection:
            submission_id = (await connection.execute(due.with_for_update(skip_locked=True))).scalar_one_or_none()
            if submission_id is None:
                return None
            change = (
                update(submissions)
                .where(_t.id == submission_id)
                .values(attempts=_t.attempts + 1, retries=_t.retries + 1, next_attempt_at=now + LEASE)
                .returning(*_t)
            )
            return from_row((await connection.execute(change)).mappings().one())

    async def conclude(
        self, claimed: Submission, outcome: Outcome, *, now: datetime, next_attempt_at: datetime | None
    ) -> bool:
        """Store the outcome of an attempt; False if a later attempt or a final reply has replaced it.

        Of a refused create only the hash of the body is kept, because a caller that repeats it sends the body again.
        An acceptance is stored however late it comes, because Rivya has confirmed that the generation exists.
        """
        is_current = true() if outcome.state is State.ACCEPTED else _t.attempts == claimed.attempts
        is_open = outcome.state is State.UNKNOWN
        change = (
            update(submissions)
            .where(_t.id == claimed.id, _t.is_final == 0, is_current)
            .values(
                state=outcome.state,
                is_final=int(outcome.is_final),
                generation_id=outcome.generation_id,
                last_error=outcome.error,
                next_attempt_at=next_attempt_at if is_open else None,
                resolved_at=None if is_open else now,
                response_status=None if is_open else outcome.reply.status,
                response=None if is_open else outcome.reply.body,
                response_retry_after=None if is_open else outcome.reply.retry_after,
                **({"request": b""} if outcome.state is State.REJECTED else {}),
            )
        )
        async with self._database.transaction() as connection:
            is_stored = (await connection.execute(change)).rowcount == 1
            if is_stored and outcome.state is State.REJECTED:
                await spending.give_back(connection, claimed.id)
            elif is_stored and outcome.state is State.ACCEPTED:
                await self._accept(connection, claimed, outcome, now)
        return is_stored

    async def _accept(self, connection: AsyncConnection, claimed: Submission, outcome: Outcome, now: datetime) -> None:
        await spending.accept(
            connection,
            claimed.id,
            token=claimed.submitted_by,
            credits_reserved=outcome.credits_reserved,
            generation_id=outcome.generation_id,
            now=now,
        )
        token, url, generation_id = claimed.submitted_by, claimed.callback_url, outcome.generation_id
        if url is not None and token is not None and generation_id is not None:
            await connection.execute(insert_callback(self._database, generation_id, url, token=token, now=now))
