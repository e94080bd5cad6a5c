"""What is to be done next about our registration: a pure function of what is written down."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum

from app.endpoint.callback_url import callback_url, is_same_place
from app.endpoint.state import State


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A row of `endpoints`. Its path key is a secret of a kind, and never in a repr."""

    id: str
    path_key: str = field(repr=False)
    url: str = field(repr=False)
    rivya_id: str | None
    state: State
    created_at: datetime
    create_attempted_at: datetime | None = None
    last_verified_at: datetime | None = None
    last_refused_at: datetime | None = None
    refusals: int = 0
    last_error: str | None = None

    @property
    def is_refused(self) -> bool:
        """A delivery at its secret path was refused since the last one that was verified."""
        if self.last_refused_at is None:
            return False
        return self.last_verified_at is None or self.last_refused_at > self.last_verified_at


class Act(Enum):
    """One step of registration; each begins at what is stored and ends with a commit."""

    INTEND = "write down a new endpoint that is to be"
    CREATE = "create it at Rivya: nobody can have heard of its key yet"
    RECOVER = "find out what became of a create that was sent"
    MOVE = "the public URL has changed"
    CHECK = "see that it still exists at Rivya"
    REMOVE = "remove one that was replaced"
    REST = "nothing"


def next_act(endpoints: Sequence[Endpoint], *, public_url: str, checked_id: str | None) -> Act:
    """The next step. `checked_id`: the endpoint whose existence at Rivya this process has seen to."""
    intended = in_state(endpoints, State.INTENDED)
    serving = in_state(endpoints, State.SERVING)
    if intended is not None:
        return Act.CREATE if intended.create_attempted_at is None else Act.RECOVER
    if serving is None:
        return Act.INTEND
    if not is_same_place(serving.url, callback_url(public_url, serving.path_key)):
        return Act.MOVE
    if serving.id != checked_id:
        return Act.CHECK
    return Act.REST if in_state(endpoints, State.RETIRING) is None else Act.REMOVE


def in_state(endpoints: Sequence[Endpoint], state: State) -> Endpoint | None:
    """The first endpoint in this state."""
    return next((endpoint for endpoint in endpoints if endpoint.state is state), None)


def current(endpoints: Sequence[Endpoint]) -> Endpoint | None:
    """The endpoint to show and to complain about: the serving one, else the one that is to be."""
    return in_state(endpoints, State.SERVING) or in_state(endpoints, State.INTENDED)
