"""The life of an endpoint of ours, as it is written down."""

from enum import StrEnum


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
