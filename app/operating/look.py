"""One look at how all replicas fare: one statement, answered from indexes whatever the size of the record."""

from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Select, bindparam, case, func, select

from app.core.database import Database, Moment
from app.core.leases import leases
from app.endpoint.leadership import LEASE as LEADER
from app.endpoint.models import LIVE
from app.endpoint.tables import endpoints
from app.intake.rejections import rejections
from app.ledger.models import Source, Status, Tracking
from app.ledger.queries import overdue
from app.ledger.sql import is_rare
from app.ledger.tables import OPEN, deliveries, generations, transitions
from app.operating.alarms import Seen
from app.submission.store import submissions

_HOUR: Final = timedelta(hours=1)
_NEWEST: Final = 2000
_TERMINAL: Final = (Status.SUCCEEDED, Status.FAILED)


class Look:
    """Reads what the alarms are about. `by_hand`: the endpoint was made by hand, so no row of ours counts refusals."""

    def __init__(self, database: Database, *, by_hand: bool) -> None:
        self._database = database
        self._statement = _statement(by_hand=by_hand, is_sqlite=database.is_sqlite)

    async def at(self, now: datetime) -> Seen:
        """How things stand at `now`. Raises `DatabaseUnavailable`."""
        async with self._database.read() as connection:
            parameters = {"now": now, "hour_ago": now - _HOUR}
            row = (await connection.execute(self._statement, parameters)).mappings().one()
        verified = [at for at in (row["last_delivery_at"], row["last_verified_at"]) if at is not None]
        return Seen(
            settled=row["settled"],
            found_by_poll=row["found_by_poll"],
            watched_since=row["watched_since"],
            last_verified_at=max(verified, default=None),
            refusals=row["refusals"],
            overdue=row["overdue"],
            unresolved_since=row["unresolved_since"],
            leader_until=row["leader_until"],
        )


def _statement(*, by_hand: bool, is_sqlite: bool) -> Select[Any]:
    g, s, d, e = generations.c, submissions.c, deliveries.c, endpoints.c
    watched = is_rare(g.tracking, Tracking.WATCHING, OPEN, is_sqlite=is_sqlite)
    last_delivery_at = select(func.max(d.received_at, type_=Moment)).scalar_subquery()
    parts = {
        "watched_since": select(func.min(g.first_seen_at, type_=Moment)).where(*watched).scalar_subquery(),
        "last_delivery_at": last_delivery_at,
        "last_verified_at": select(func.max(e.last_verified_at, type_=Moment)).scalar_subquery(),
        "refusals": _refused_since(last_delivery_at) if by_hand else _refused_at_our_path(),
        "overdue": overdue(),
        "unresolved_since": (
            select(func.min(s.created_at, type_=Moment)).where(s.next_attempt_at.is_not(None)).scalar_subquery()
        ),
        "leader_until": select(leases.c.held_until).where(leases.c.name == LEADER).scalar_subquery(),
    }
    settled = _settled_lately()
    return select(settled.c.settled, settled.c.found_by_poll, *(part.label(name) for name, part in parts.items()))


def _settled_lately() -> Any:  # noqa: ANN401 - a subquery
    # The newest are found by the primary key, however many transitions there are; no index by time is needed.
    t = transitions.c
    newest = select(t.source, t.to_status, t.recorded_at).order_by(t.sequence.desc()).limit(_NEWEST).subquery("newest")
    n = newest.c
    by_poll = func.coalesce(func.sum(case((n.source == Source.POLL, 1), else_=0)), 0)
    chosen = select(func.count().label("settled"), by_poll.label("found_by_poll")).where(
        n.to_status.in_(_TERMINAL), n.recorded_at >= bindparam("hour_ago", type_=Moment)
    )
    return chosen.select_from(newest).subquery("settled_lately")


def _refused_at_our_path() -> Any:  # noqa: ANN401 - a scalar subquery
    e = endpoints.c
    return select(func.coalesce(func.sum(e.refusals), 0)).where(e.state.in_(LIVE)).scalar_subquery()


def _refused_since(last_delivery_at: Any) -> Any:  # noqa: ANN401 - scalar subqueries
    # A bounded sample: what it can't tell is how many more than a thousand there were.
    since = func.coalesce(last_delivery_at, bindparam("hour_ago", type_=Moment))
    return select(func.count()).select_from(rejections).where(rejections.c.rejected_at > since).scalar_subquery()
