"""What submission needs of the request budget that all replicas share; `app.polling.allowance` is one."""

from typing import Protocol

from app.rivya.errors import RivyaError


class Allowance(Protocol):
    """The request budget that all replicas share."""

    async def take(self) -> bool:
        """True when one request may be sent now; who is told False comes back later."""

    async def note(self, error: RivyaError) -> None:
        """Rivya answered with this error: it may ask everybody to pause."""

    async def note_success(self) -> None:
        """Rivya took our key."""
