"""An endpoint of ours: its states, its callback URL, and the next step of its registration; pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum, StrEnum
from typing import Final, Literal
from urllib.parse import SplitResult, unquote, urlsplit


class State(StrEnum):
    """The states of an endpoint: intended → created → proven → serving → retiring → retired.

    A live endpoint (created, proven or serving) is retiring once another was created in its place, and retired if
    somebody removes it at Rivya. A retiring one is removed once the new one is proven, or after a day.
    """

    INTENDED = "intended"  # stored; it may or may not exist at Rivya
    CREATED = "created"  # it exists at Rivya, and its encrypted secret is stored
    PROVEN = "proven"  # a delivery was verified with its secret
    SERVING = "serving"  # in use; the endpoint before it may be removed
    RETIRING = "retiring"  # replaced; its deliveries are still accepted
    RETIRED = "retired"  # it no longer exists at Rivya
    MANUAL = "manual"  # registered by hand: its secret is a setting; only its proven scheme and health are stored


LIVE: Final = frozenset({State.CREATED, State.PROVEN, State.SERVING})
"""The endpoint exists at Rivya, we hold its secret, and no other has replaced it."""
PROOF_PATIENCE: Final = timedelta(seconds=30)
"""How long a test delivery is awaited after it was requested."""
CONTRADICTIONS: Final = 3
"""From this many deliveries that another scheme proves, Rivya probably signs differently from what is pinned."""
RETIRING: Final = timedelta(hours=24)
"""How long a replaced endpoint stays at Rivya, unless the new one is proven earlier."""
NAME: Final = "rivya-receiver"
"""The name of our endpoints at Rivya."""
PATH: Final = "/rivya/webhook/"

_DEFAULT_PORTS: Final = {"https": 443, "http": 80}
_VISIBLE: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A row of `endpoints` with the times of its current secret. Path key and URL are confidential: never in a repr."""

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
    """When its current secret was stored; None while it has none."""
    secret_proven_at: datetime | None = None
    """When a delivery was first verified with its current secret."""

    @property
    def is_refused(self) -> bool:
        """True if a delivery to its secret path was refused after the last one that was verified."""
        refused, verified = self.last_refused_at, self.last_verified_at
        return refused is not None and (verified is None or refused > verified)

    @property
    def is_in_doubt(self) -> bool:
        """True if Rivya may sign with a secret that we don't have: one was requested, and the answer is not stored."""
        is_create_sent = self.state is State.INTENDED and self.create_attempted_at is not None
        return is_create_sent or self.rotation_attempted_at is not None

    @property
    def is_contradicted(self) -> bool:
        """True if another scheme than the pinned one proved at least `CONTRADICTIONS` deliveries to its path."""
        return self.other_scheme_count >= CONTRADICTIONS

    @property
    def rotation(self) -> Literal["none", "requested", "in_doubt"]:
        """The state of the replacement of its secret."""
        if self.rotation_attempted_at is not None:
            return "in_doubt"
        return "none" if self.rotation_requested_at is None else "requested"

    def is_awaiting_proof(self, now: datetime) -> bool:
        """True if a test delivery was requested and may still come."""
        if self.secret_proven_at is not None or self.test_asked_at is None:
            return False
        return now < self.test_asked_at + PROOF_PATIENCE

    def callbacks_expected(self, now: datetime) -> bool:
        """True if callbacks are expected: deliveries are verified, or nothing speaks against it yet."""
        if self.state not in LIVE or self.is_refused:
            return False
        return self.state is not State.CREATED or self.test_asked_at is None or self.is_awaiting_proof(now)


def in_state(endpoints: Sequence[Endpoint], *states: State) -> Endpoint | None:
    """The first endpoint in one of these states, None if there is none."""
    return next((endpoint for endpoint in endpoints if endpoint.state in states), None)


def live(endpoints: Sequence[Endpoint]) -> Endpoint | None:
    """The endpoint that Rivya delivers to, None if there is none."""
    return in_state(endpoints, *LIVE)


def current(endpoints: Sequence[Endpoint]) -> Endpoint | None:
    """The endpoint to show and to report errors about: the live one, else one that is intended or manual."""
    return live(endpoints) or in_state(endpoints, State.INTENDED, State.MANUAL)


def pinned_scheme(endpoints: Sequence[Endpoint]) -> str | None:
    """The scheme of the newest endpoint that has one, as Rivya signs for all of them alike; None if there is none."""
    newest_first = sorted(endpoints, key=lambda endpoint: endpoint.id, reverse=True)
    return next((endpoint.scheme for endpoint in newest_first if endpoint.scheme is not None), None)


def callback_url(public_url: str, path_key: str) -> str:
    """The URL to register with Rivya; the random key at its end proves that an endpoint is ours."""
    return f"{public_url.rstrip('/')}{PATH}{path_key}"


def path_key_of(url: str) -> str | None:
    """The last segment of the URL's path in lower case; None if there is none."""
    parts = _split(url)
    return None if parts is None else unquote(parts.path).rstrip("/").rpartition("/")[2].casefold() or None


def is_path_key(path_key: str, segment: str | None) -> bool:
    """True if `segment`, from `path_key_of`, is this key. Upper and lower case are equal."""
    return segment is not None and path_key.casefold() == segment


def is_same_place(one: str, other: str) -> bool:
    """True if both URLs lead to the same place; case, default port and trailing slash don't matter."""
    return one == other or (_place(one) is not None and _place(one) == _place(other))


def is_same_host(one: str, other: str) -> bool:
    """True if both URLs have the same host, whatever their ports and paths."""
    places = _place(one), _place(other)
    return None not in places and len({place[1] for place in places if place is not None}) == 1


def masked(url: str, path_key: str) -> str:
    """The URL with all but the first 4 characters of its key hidden; only asterisks if it doesn't hold the key."""
    before, key, _ = url.partition(path_key)
    return f"{before}{path_key[:_VISIBLE]}****" if key else "****"


def _place(url: str) -> tuple[str, str, int | None, str] | None:
    parts = _split(url)
    if parts is None or not parts.hostname:
        return None
    port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
    return parts.scheme, parts.hostname.rstrip("."), port, unquote(parts.path).rstrip("/").casefold()


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises if it is not a number
    except ValueError:
        return None
    return parts


class Step(Enum):
    """One step of registration; each starts from what is stored and ends with a commit."""

    DECLARE = "store a new intended endpoint"
    CREATE = "create it at Rivya, where no endpoint can have its key yet"
    RECOVER = "find out whether a create that was sent took effect"
    ROTATE = "give it a new secret"
    SERVE = "set the proven endpoint to serving"
    RELOCATE = "change its URL, because the public URL has changed"
    CHECK = "compare it with its state at Rivya"
    REQUEST_TEST = "request a test delivery, which proves its secret"
    REMOVE = "remove a replaced endpoint"
    IDLE = "nothing to do"


def next_step(  # noqa: PLR0911 - a list of rules, the first that applies
    endpoints: Sequence[Endpoint],
    *,
    now: datetime,
    public_url: str,
    is_check_due: bool,
    rotate_every: timedelta | None = None,
) -> Step:
    """The step to do next."""
    intended = in_state(endpoints, State.INTENDED)
    if intended is not None:
        return Step.CREATE if intended.create_attempted_at is None else Step.RECOVER
    wanted = live(endpoints)
    if wanted is None:
        return Step.DECLARE
    if is_rotation_due(wanted, now=now, rotate_every=rotate_every):
        return Step.ROTATE
    if wanted.state is State.PROVEN:
        return Step.SERVE
    if not is_same_place(wanted.url, callback_url(public_url, wanted.path_key)):
        return Step.RELOCATE
    if wanted.secret_proven_at is None and wanted.test_asked_at is None:
        return Step.REQUEST_TEST
    if is_check_due:
        return Step.CHECK
    return Step.REMOVE if removable(endpoints, now=now) is not None else Step.IDLE


def is_rotation_due(endpoint: Endpoint, *, now: datetime, rotate_every: timedelta | None) -> bool:
    """True if it needs a new secret: it has none, an admin requests one, a rotation is in doubt, or it is too old."""
    if endpoint.secret_since is None or endpoint.rotation != "none":
        return True
    return rotate_every is not None and now >= endpoint.secret_since + rotate_every


def removable(endpoints: Sequence[Endpoint], *, now: datetime) -> Endpoint | None:
    """A replaced endpoint that may be removed: the live one is proven, or a day has passed. None if there is none."""
    wanted, retiring = live(endpoints), in_state(endpoints, State.RETIRING)
    if wanted is None or retiring is None:
        return None
    since = retiring.state_since or retiring.created_at
    return retiring if wanted.state is not State.CREATED or now >= since + RETIRING else None
