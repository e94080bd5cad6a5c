"""What tokens with limits have reserved and spent. Exact: one conditional statement reserves, under the row's lock.

Amounts are stored in millionths of a credit, as integers, so that sums are exact. A charge is one create or chat turn
whose price is not final: it is reserved in the transaction that writes the create down, corrected when Rivya tells
more, and removed when it is spent or given back. Rows are locked in this order: submission, charge, rate, month, day.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    Integer,
    Row,
    Select,
    Table,
    Text,
    and_,
    bindparam,
    case,
    cast,
    delete,
    func,
    insert,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.auth import NO_LIMITS, REFUSALS, Caller, TokenLimits
from app.core.clock import Clock
from app.core.database import Database, Id, UtcDateTime, enum_check, metadata, partial_index
from app.core.errors import ServiceError
from app.ledger.models import Status
from app.ledger.tables import generations
from app.tokens.repository import tokens

MILLION: Final = 1_000_000
_LARGEST: Final = 1e12
_GENERATION, _TURN = "generation", "turn"
_SETTLED_AT_ONCE: Final = 500
_SECONDS_BETWEEN_RUNS: Final = 1.0
_PRICE_COMES_WITHIN: Final = timedelta(hours=1)
"""After its outcome a generation's final credits may come this late; then what was reserved counts as spent."""
_TURN_LIFETIME: Final = timedelta(hours=26)
"""A turn may be repeated with its key for a day; one that a killed process left behind counts as it was reserved."""

token_spending = Table(
    "token_spending",
    metadata,
    Column("token", Id, primary_key=True),
    Column("period", Id, primary_key=True, comment="a day like 2026-05-10 or a month like 2026-05, in UTC"),
    Column("reserved", BigInteger, nullable=False, comment="millionths of a credit"),
    Column("spent", BigInteger, nullable=False, comment="millionths of a credit"),
)
token_charges = Table(
    "token_charges",
    metadata,
    Column("id", Id, primary_key=True, comment="of the submission, or of the chat turn"),
    Column("token", Id, nullable=False),
    Column("kind", Text, nullable=False),
    Column("day", Text, nullable=False, comment="to which it counts, with its month"),
    Column("amount", BigInteger, nullable=False, comment="reserved, in millionths of a credit"),
    Column("generation_id", Id, comment="null: not known yet"),
    Column("spent", BigInteger, comment="what a turn with an Idempotency-Key has cost: it may be repeated"),
    Column("created_at", UtcDateTime, nullable=False),
    enum_check("kind", (_GENERATION, _TURN)),
    partial_index("ix_token_charges_generation_id", "generation_id", where=text("generation_id IS NOT NULL")),
)
token_rates = Table(
    "token_rates",
    metadata,
    Column("token", Id, primary_key=True),
    Column("minute", UtcDateTime, nullable=False),
    Column("calls", Integer, nullable=False, comment="creates and chat turns in this minute"),
)

_p, _c, _r = token_spending.c, token_charges.c, token_rates.c


class TokenLimitReached(ServiceError):
    """402: the token has too few credits left in this day or month; nothing was stored and Rivya was not called."""

    status = 402
    code = "token_limit_reached"


class ModelNotAllowed(ServiceError):
    """403: the token may not use this model."""

    status = 403
    code = "model_not_allowed"


class TokenRateLimited(ServiceError):
    """429: the token has made its calls of this minute."""

    status = 429
    code = "rate_limited"


def check_model(caller: Caller, model: object) -> None:
    """Raise `ModelNotAllowed` unless the caller's token may use this model."""
    allowed = caller.limits.models
    if allowed is not None and model not in allowed:
        REFUSALS.labels(ModelNotAllowed.code).inc()
        raise ModelNotAllowed(f"Token {caller.name} may use these models only: {', '.join(allowed)}.")


def has_credit_limit(limits: TokenLimits) -> bool:
    """Whether what the token spends has to be counted."""
    return limits.credits_per_day is not None or limits.credits_per_month is not None


async def reserve(
    connection: AsyncConnection,
    caller: Caller,
    charge_id: str,
    credits_needed: float,
    *,
    now: datetime,
    kind: str = _GENERATION,
) -> None:
    """Count a call and reserve its credits, in the transaction of the caller, which must not commit if this raises.

    Raises `TokenRateLimited`, `TokenLimitReached`.
    """
    if caller.limits.rate is not None:
        await _count_call(connection, caller, caller.limits.rate, now)
    if not has_credit_limit(caller.limits):
        return
    await _charge(connection, caller.name, charge_id, _to_millionths(credits_needed), caller.limits, now=now, kind=kind)


async def _charge(
    connection: AsyncConnection,
    token: str,
    charge_id: str,
    amount: int,
    limits: TokenLimits,
    *,
    now: datetime,
    kind: str,
) -> None:
    day = f"{now:%Y-%m-%d}"
    charge = {"id": charge_id, "token": token, "kind": kind, "day": day, "amount": amount, "created_at": now}
    await connection.execute(insert(token_charges).values(charge))
    for period in _periods(day):
        await _reserve_in(connection, token, period, amount, _limit(limits, period), now)


async def _count_call(connection: AsyncConnection, caller: Caller, rate: int, now: datetime) -> None:
    minute = now.replace(second=0, microsecond=0)
    new = _insert(connection, token_rates).values(token=caller.name, minute=minute, calls=1)
    is_same = _r.minute >= new.excluded.minute  # another replica's clock may be ahead
    changed = {
        "minute": case((is_same, _r.minute), else_=new.excluded.minute),
        "calls": case((is_same, _r.calls + 1), else_=1),
    }
    counted = new.on_conflict_do_update(
        index_elements=[_r.token], set_=changed, where=or_(_r.minute < new.excluded.minute, _r.calls < rate)
    )
    if (await connection.execute(counted)).rowcount == 0:
        REFUSALS.labels(TokenRateLimited.code).inc()
        wait = 60 - (now - minute).total_seconds()
        raise TokenRateLimited(f"Token {caller.name} has made its {rate} calls of this minute.", retry_after=wait)


async def _reserve_in(
    connection: AsyncConnection, token: str, period: str, amount: int, limit: float | None, now: datetime
) -> None:
    most = None if limit is None else _to_millionths(limit)
    new = _insert(connection, token_spending).values(token=token, period=period, reserved=amount, spent=0)
    fits = None if most is None else _p.reserved + _p.spent + amount <= most
    reserved = new.on_conflict_do_update(
        index_elements=[_p.token, _p.period], set_={"reserved": _p.reserved + amount}, where=fits
    )
    if (most is None or amount <= most) and (await connection.execute(reserved)).rowcount == 1:
        return
    REFUSALS.labels(TokenLimitReached.code).inc()
    used = select(_p.reserved + _p.spent).where(_p.token == token, _p.period == period)
    left = max((most or 0) - ((await connection.execute(used)).scalar_one_or_none() or 0), 0)
    raise TokenLimitReached(
        f"Token {token} has {left / MILLION:g} of {limit:g} credits left for {period}, and this needs "
        f"{amount / MILLION:g}; they renew at {renewal(period, now):%Y-%m-%dT%H:%M:%SZ}. Nothing was sent."
    )


async def accept(
    connection: AsyncConnection,
    charge_id: str,
    *,
    token: str | None,
    credits_reserved: float | None,
    generation_id: str | None,
    now: datetime,
) -> None:
    """Correct a charge by what Rivya has reserved. One that was given back counts again: Rivya made it after all."""
    charge = await _locked(connection, charge_id)
    if charge is not None:
        amount = charge.amount if credits_reserved is None else _to_millionths(credits_reserved)
        changed = {"amount": amount, "generation_id": generation_id}
        await connection.execute(update(token_charges).where(_c.id == charge_id).values(changed))
        await _add(connection, {(charge.token, charge.day): (amount - charge.amount, 0)})
        return
    is_limited = or_(tokens.c.credits_per_day.is_not(None), tokens.c.credits_per_month.is_not(None))
    limited = select(tokens.c.name).where(tokens.c.name == token, is_limited)
    if token is not None and (await connection.execute(limited)).first() is not None:
        amount = _to_millionths(credits_reserved or 0)
        await _charge(connection, token, charge_id, amount, NO_LIMITS, now=now, kind=_GENERATION)
        await connection.execute(update(token_charges).where(_c.id == charge_id).values(generation_id=generation_id))


async def give_back(connection: AsyncConnection, charge_id: str) -> None:
    """Remove a charge: nothing was made. Without one this does nothing."""
    charge = await _locked(connection, charge_id)
    if charge is not None:
        await connection.execute(delete(token_charges).where(_c.id == charge_id))
        await _add(connection, {(charge.token, charge.day): (-charge.amount, 0)})


async def _locked(connection: AsyncConnection, charge_id: str) -> Row[Any] | None:
    return (await connection.execute(select(token_charges).where(_c.id == charge_id).with_for_update())).one_or_none()


async def _add(connection: AsyncConnection, changes: Mapping[tuple[str, str], tuple[int, int]]) -> None:
    """Add to reserved and spent, by token and day, and to the months of these days."""
    reserved: Counter[tuple[str, str]] = Counter()
    spent: Counter[tuple[str, str]] = Counter()
    for (token, day), (of_reserved, of_spent) in changes.items():
        for period in _periods(day):
            reserved[token, period] += of_reserved
            spent[token, period] += of_spent
    for token, period in sorted(reserved):
        grown = {"reserved": _p.reserved + reserved[token, period], "spent": _p.spent + spent[token, period]}
        await connection.execute(update(token_spending).where(_p.token == token, _p.period == period).values(grown))


Price = Callable[[str], Awaitable[float | None]]
"""Returns Rivya's `base_credits` of a model, None where it is not known."""


@dataclass(frozen=True, slots=True)
class Spent:
    """What a token has reserved and spent in a period, in credits."""

    reserved: float
    spent: float


class Spending:
    """The charges that other parts of the service do not settle. Methods raise `DatabaseUnavailable`."""

    def __init__(self, database: Database, clock: Clock, *, price: Price, default_credits: float) -> None:
        self._database = database
        self._clock = clock
        self._price = price
        self._default_credits = default_credits

    async def price(self, caller: Caller, model: str) -> float:
        """The credits to reserve for a call; 0 where nothing is counted."""
        if not has_credit_limit(caller.limits):
            return 0.0
        known = await self._price(model)
        return self._default_credits if known is None else known

    async def begin_turn(self, caller: Caller, turn_id: str, model: str) -> None:
        """Reserve the credits of a chat turn. Raises `TokenRateLimited`, `TokenLimitReached`."""
        if caller.limits.rate is None and not has_credit_limit(caller.limits):
            return
        credits_needed = await self.price(caller, model)
        async with self._database.transaction() as connection:
            if await _locked(connection, turn_id) is not None:
                return  # a repetition: Rivya charges it once
            await reserve(connection, caller, turn_id, credits_needed, now=self._clock.now(), kind=_TURN)

    async def end_turn(self, caller: Caller, turn_id: str, spent: float | None, *, is_keyed: bool) -> None:
        """Count what a turn has cost; None: what was reserved for it. A keyed one may come again, and costs once."""
        if not has_credit_limit(caller.limits):
            return
        async with self._database.transaction() as connection:
            charge = await _locked(connection, turn_id)
            if charge is None:
                return
            before = charge.spent or 0
            total = (before or charge.amount) if spent is None else _to_millionths(spent)
            if charge.spent is not None and not total:
                return  # the repetition failed, the turn did not
            await _add(connection, {(charge.token, charge.day): (-charge.amount, total - before)})
            if is_keyed and total:
                await connection.execute(update(token_charges).where(_c.id == turn_id).values(amount=0, spent=total))
            else:
                await connection.execute(delete(token_charges).where(_c.id == turn_id))

    async def now(self) -> dict[tuple[str, str], Spent]:
        """As `spent_at`, now."""
        return await spent_at(self._database, self._clock.now())

    async def run_once(self) -> float:
        """Count what settled generations have cost; returns the seconds until the next run."""
        parameters = {
            "price_by": self._clock.now() - _PRICE_COMES_WITHIN,
            "turn_by": self._clock.now() - _TURN_LIFETIME,
        }
        async with self._database.read() as connection:
            if (await connection.execute(_DUE.limit(1), parameters)).first() is None:
                return _SECONDS_BETWEEN_RUNS
        async with self._database.transaction() as connection:
            due = _DUE.limit(_SETTLED_AT_ONCE).with_for_update(of=token_charges, skip_locked=True)
            rows = (await connection.execute(due, parameters)).all()
            ids = [row.id for row in rows]
            await connection.execute(delete(token_charges).where(_c.id.in_(ids)))
            await _add(connection, _totals(rows))
        return 0.0 if len(rows) == _SETTLED_AT_ONCE else _SECONDS_BETWEEN_RUNS


async def spent_at(database: Database, now: datetime) -> dict[tuple[str, str], Spent]:
    """What was reserved and spent in this day and month, by token and period. Raises `DatabaseUnavailable`."""
    periods = _periods(f"{now:%Y-%m-%d}")
    async with database.read() as connection:
        rows = (await connection.execute(select(token_spending).where(_p.period.in_(periods)))).all()
    return {(row.token, row.period): Spent(row.reserved / MILLION, row.spent / MILLION) for row in rows}


def _due() -> Select[Any]:
    g = generations.c
    has_price = or_(g.final_credits.is_not(None), g.status == Status.FAILED)
    is_settled = and_(
        g.settled_at.is_not(None), or_(has_price, g.settled_at < bindparam("price_by", type_=UtcDateTime))
    )
    is_forgotten = and_(_c.generation_id.is_not(None), g.id.is_(None))
    is_left = and_(_c.kind == _TURN, _c.created_at < bindparam("turn_by", type_=UtcDateTime))
    return (
        select(_c.id, _c.token, _c.day, _c.amount, g.status, g.final_credits)
        .select_from(token_charges.outerjoin(generations, g.id == _c.generation_id))
        .where(or_(is_settled, is_forgotten, is_left))
        .order_by(_c.id)
    )


_DUE: Final = _due()


def largest_share() -> Select[Any]:
    """The largest share that a token has used of a limit, for the periods `:day` and `:month`; null without any."""
    used = cast(_p.reserved + _p.spent, Float)
    limit = case((_p.period == bindparam("day"), tokens.c.credits_per_day), else_=tokens.c.credits_per_month)
    share = func.max(used / cast(limit * MILLION, Float))
    joined = token_spending.join(tokens, tokens.c.name == _p.token)
    periods = _p.period.in_([bindparam("day"), bindparam("month")])
    return select(share).select_from(joined).where(periods, limit > 0, tokens.c.revoked_at.is_(None))


def _totals(rows: Iterable[Row[Any]]) -> dict[tuple[str, str], tuple[int, int]]:
    totals: dict[tuple[str, str], tuple[int, int]] = {}
    for row in rows:
        reserved, spent = totals.get((row.token, row.day), (0, 0))
        cost = 0 if row.status == Status.FAILED else row.amount
        if row.final_credits is not None:
            cost = _to_millionths(row.final_credits)
        totals[row.token, row.day] = (reserved - row.amount, spent + cost)
    return totals


def renewal(period: str, now: datetime) -> datetime:
    """When the credits of this day or month renew; `now` is within it."""
    day = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if len(period) > len("2026-05"):
        return day + timedelta(days=1)
    return (day.replace(day=1) + timedelta(days=32)).replace(day=1)


def _periods(day: str) -> tuple[str, str]:
    """The month of a day, and the day, in the order in which their rows are locked."""
    return day[: len("2026-05")], day


def _limit(limits: TokenLimits, period: str) -> float | None:
    return limits.credits_per_day if len(period) > len("2026-05") else limits.credits_per_month


def _to_millionths(amount: float) -> int:
    return round(min(max(amount, 0.0), _LARGEST) * MILLION)


def _insert(connection: AsyncConnection, table: Table) -> Any:  # noqa: ANN401 - of either dialect
    return (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(table)
