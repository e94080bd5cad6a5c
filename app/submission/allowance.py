"""What submission needs of the request budget that all replicas share; `app.ratelimit.limiter` is one."""

from typing import Protocol

from app.rivya.errors import RivyaError


class RateLimiter(Protocol):
    """The request budget that all replicas share."""

    async def acquire(self) -> bool:
        """True when one request may be sent now; who is told False comes back later."""

    async def record_error(self, error: RivyaError) -> None:
        """Rivya answered with this error: it may ask everybody to pause."""

    async def record_success(self) -> None:
        """Rivya took our key."""
