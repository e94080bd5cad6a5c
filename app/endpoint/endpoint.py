"""An endpoint of ours as it is written down, and which of several is meant; pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from app.endpoint.state import LIVE, State

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
