"""What a part of the service finds when it looks at itself, as `/readyz` shows it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at."""

    name: str
    ok: bool
    detail: str
    """What is wrong and what to do about it, or how well it is."""
    is_required: bool
    """The service is not ready while this is not ok."""
