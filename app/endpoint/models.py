"""An endpoint of ours: its states, its callback URL, and which step of registration is next."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum, StrEnum
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

# The life of an endpoint of ours, as it is written down.


class State(StrEnum):
    """The life of an endpoint: intended → created → proven → serving → retiring → retired.

    intended → created: Rivya's id and the sealed secret are stored. What was live before is retiring from then on.
    created → proven: a delivery was verified with its secret; by which event is written down.
    proven → serving: the registration is complete; the one before it may go.
    live → retiring: replaced by another that was created.
    retiring → retired: removed at Rivya, once the new one is proven or a day has passed.
    created, proven, serving → retired: somebody removed it at Rivya.
    """

    INTENDED = "intended"
    """Written down; Rivya may or may not have heard of it."""
    CREATED = "created"
    """Rivya has it, and we hold its secret."""
    PROVEN = "proven"
    """A delivery was verified with its secret."""
    SERVING = "serving"
    """The one that is wanted, proven by a delivery."""
    RETIRING = "retiring"
    """Replaced; its deliveries are still accepted."""
    RETIRED = "retired"
    """Gone at Rivya."""
    MANUAL = "manual"
    """Made by hand: its secret is a setting, and only the proven scheme and its health are kept."""


LIVE = frozenset({State.CREATED, State.PROVEN, State.SERVING})
"""Rivya has it, we hold its secret, and nothing has replaced it."""


PROOF_PATIENCE: Final = timedelta(seconds=30)
"""A test delivery that has not come so long after it was asked for is not waited for any more."""
CONTRADICTIONS: Final = 3
"""So many deliveries that another scheme proves are no accident."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A row of `endpoints` with its current secret. Its path key is a secret of a kind, and never in a repr."""

    id: str
    path_key: str = field(repr=False)
    url: str = field(repr=False)
    rivya_id: str | None
    state: State
    created_at: datetime
    state_since: datetime | None = None
    create_attempted_at: datetime | None = None
    rotation_requested_at: datetime | None = None
    rotation_attempted_at: datetime | None = None
    test_asked_at: datetime | None = None
    scheme: str | None = None
    proven_at: datetime | None = None
    proven_by: str | None = None
    other_scheme: str | None = None
    other_scheme_count: int = 0
    last_verified_at: datetime | None = None
    last_refused_at: datetime | None = None
    refusals: int = 0
    last_error: str | None = None
    failure_count: int = 0
    last_success_at: datetime | None = None
    last_failure_at: datetime | None = None
    secret_since: datetime | None = None
    """When its current secret came; None while it has none."""
    secret_proven_at: datetime | None = None
    """When a delivery was first verified with its current secret."""

    @property
    def is_refused(self) -> bool:
        """A delivery at its secret path was refused since the last one that was verified."""
        if self.last_refused_at is None:
            return False
        return self.last_verified_at is None or self.last_refused_at > self.last_verified_at

    @property
    def is_in_doubt(self) -> bool:
        """A call that makes a secret was sent, and its answer is not stored: Rivya may sign with what we don't know."""
        return self.rotation_attempted_at is not None or (
            self.state is State.INTENDED and self.create_attempted_at is not None
        )

    @property
    def is_contradicted(self) -> bool:
        """Deliveries at its path were proved by another scheme than the pinned one."""
        return self.other_scheme_count >= CONTRADICTIONS

    def is_awaiting_proof(self, now: datetime) -> bool:
        """A test delivery was asked for, and may still come."""
        if self.secret_proven_at is not None or self.test_asked_at is None:
            return False
        return now < self.test_asked_at + PROOF_PATIENCE

    def is_counted_on(self, now: datetime) -> bool:
        """Callbacks may be expected: they come, or nothing is known against it yet."""
        if self.state not in LIVE or self.is_refused:
            return False
        return self.state is not State.CREATED or self.test_asked_at is None or self.is_awaiting_proof(now)


def in_state(endpoints: Sequence[Endpoint], *states: State) -> Endpoint | None:
    """The first endpoint in one of these states."""
    return next((endpoint for endpoint in endpoints if endpoint.state in states), None)


def live(endpoints: Sequence[Endpoint]) -> Endpoint | None:
    """The endpoint that Rivya is to deliver to."""
    return in_state(endpoints, *LIVE)


def current(endpoints: Sequence[Endpoint]) -> Endpoint | None:
    """The endpoint to show and to complain about: the live one, else the one that is to be."""
    return live(endpoints) or in_state(endpoints, State.INTENDED, State.MANUAL)


def pinned_scheme(endpoints: Sequence[Endpoint]) -> str | None:
    """The scheme that was proven; it is Rivya's, so a later endpoint begins with what an earlier one proved."""
    newest_first = sorted(endpoints, key=lambda endpoint: endpoint.id, reverse=True)
    return next((endpoint.scheme for endpoint in newest_first if endpoint.scheme is not None), None)


# Where Rivya calls us: the callback URL, and the random key at its end that proves an endpoint is ours; pure.


PATH = "/rivya/webhook/"

_DEFAULT_PORTS = {"https": 443, "http": 80}
_SHOWN = 4


def callback_url(public_url: str, path_key: str) -> str:
    """The URL that is registered with Rivya."""
    return f"{public_url.rstrip('/')}{PATH}{path_key}"


def path_key_of(url: str) -> str | None:
    """The last segment of the URL's path in lower case, whatever else the URL says; None where there is none."""
    parts = _split(url)
    return None if parts is None else unquote(parts.path).rstrip("/").rpartition("/")[2].casefold() or None


def is_path_key(path_key: str, segment: str | None) -> bool:
    """`segment`, from `path_key_of`, is this key: 192 random bits are the same bits in any case."""
    return segment is not None and path_key.casefold() == segment


def is_same_place(one: str, other: str) -> bool:
    """Both URLs lead to the same place: upper or lower case, default port and trailing slash don't matter."""
    return one == other or (_place(one) is not None and _place(one) == _place(other))


def masked(url: str, path_key: str) -> str:
    """The URL with all but the first 4 characters of its key hidden; nothing of a URL that doesn't hold the key."""
    before, key, _ = url.partition(path_key)
    return f"{before}{path_key[:_SHOWN]}****" if key else "****"


def _place(url: str) -> tuple[str, str, int | None, str] | None:
    parts = _split(url)
    if parts is None or not parts.hostname:
        return None
    port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
    return parts.scheme, parts.hostname.rstrip("."), port, unquote(parts.path).rstrip("/").casefold()


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return parts


# What is to be done next about our registration: a pure function of what is written down.


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
