"""The states of a submission: sending → accepted | rejected | unknown; what is unknown is resolved later."""

from enum import StrEnum


class State(StrEnum):
    """What is known of a submission."""

    SENDING = "sending"
    """Written down, being sent (or cut off while it was)."""
    ACCEPTED = "accepted"
    """Rivya made a generation of it."""
    REJECTED = "rejected"
    """Rivya said no, or certainly never heard of it."""
    UNKNOWN = "unknown"
    """It was sent and no answer came: retried with the same key until one does."""
