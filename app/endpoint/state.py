"""The life of an endpoint of ours, as it is written down."""

from enum import StrEnum


class State(StrEnum):
    """The life of an endpoint: intended → created → proven → serving → retiring → retired."""

    INTENDED = "intended"
    """Written down; Rivya may or may not have heard of it."""
    CREATED = "created"
    """Rivya has it, and we hold its secret."""
    PROVEN = "proven"
    """A delivery was verified with its secret."""
    SERVING = "serving"
    """The one that is wanted."""
    RETIRING = "retiring"
    """Replaced; its deliveries are still accepted."""
    RETIRED = "retired"
    """Gone at Rivya."""
