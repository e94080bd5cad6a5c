"""Which kinds of relayed calls there are; pure."""

from enum import StrEnum


class Kind(StrEnum):
    """What a call is, as far as relaying it goes."""

    READ = "read"
    UPLOAD = "upload"
    TURN = "turn"
    """One whole answer, which a model takes its time for."""
    STREAM = "stream"
