"""What is to be done next about our registration: a pure function of what is written down."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import Enum
from typing import Final

from app.endpoint.callback_url import callback_url, is_same_place
from app.endpoint.endpoint import Endpoint, in_state, live
from app.endpoint.state import State

RETIRING: Final = timedelta(hours=24)
"""So long a replaced endpoint is kept at Rivya, unless the new one has delivered before."""


class Act(Enum):
    """One step of registration; each begins at what is stored and ends with a commit."""

    INTEND = "write down a new endpoint that is to be"
    CREATE = "create it at Rivya: nobody can have heard of its key yet"
    RECOVER = "find out what became of a create that was sent"
    ROTATE = "give it a new secret"
    SERVE = "it is proven: it serves from now on"
    MOVE = "the public URL has changed"
    CHECK = "see that it is at Rivya as it is wanted"
    ASK = "ask for a test delivery, which proves its secret"
    REMOVE = "remove one that was replaced"
    REST = "nothing"


def next_act(  # noqa: PLR0911 - a list of rules, the first that applies
    endpoints: Sequence[Endpoint],
    *,
    now: datetime,
    public_url: str,
    is_check_due: bool,
    rotate_every: timedelta | None = None,
) -> Act:
    """The next step."""
    intended = in_state(endpoints, State.INTENDED)
    if intended is not None:
        return Act.CREATE if intended.create_attempted_at is None else Act.RECOVER
    wanted = live(endpoints)
    if wanted is None:
        return Act.INTEND
    if is_rotation_due(wanted, now=now, rotate_every=rotate_every):
        return Act.ROTATE
    if wanted.state is State.PROVEN:
        return Act.SERVE
    if not is_same_place(wanted.url, callback_url(public_url, wanted.path_key)):
        return Act.MOVE
    if wanted.secret_proven_at is None and wanted.test_asked_at is None:
        return Act.ASK
    if is_check_due:
        return Act.CHECK
    return Act.REMOVE if removable(endpoints, now=now) is not None else Act.REST


def is_rotation_due(endpoint: Endpoint, *, now: datetime, rotate_every: timedelta | None) -> bool:
    """It needs a new secret: none is known, one was asked for, a rotation is in doubt, or its time has come."""
    if endpoint.secret_since is None:
        return True
    if endpoint.rotation_requested_at is not None or endpoint.rotation_attempted_at is not None:
        return True
    return rotate_every is not None and now >= endpoint.secret_since + rotate_every


def removable(endpoints: Sequence[Endpoint], *, now: datetime) -> Endpoint | None:
    """A replaced endpoint that may go: the live one has delivered, or a day has passed."""
    wanted, retiring = live(endpoints), in_state(endpoints, State.RETIRING)
    if wanted is None or retiring is None:
        return None
    since = retiring.state_since or retiring.created_at
    return retiring if wanted.state is not State.CREATED or now >= since + RETIRING else None
