"""When the process stops: calls under way get a while to end by themselves, and are then ended."""

import asyncio
from typing import Final

from app.core.errors import ServiceError

GRACE_SECONDS: Final = 8.0


class Stopping(ServiceError):
    """The process stops before Rivya has answered; with a key the call can be repeated elsewhere."""

    status = 503
    code = "stopping"

    def __init__(self) -> None:
        message = "The receiver is stopping; the call may have taken effect. Repeat it with the same Idempotency-Key."
        super().__init__(message, retry_after=1)


class Curfew:
    """Over once it was rung and the grace has passed."""

    def __init__(self, *, grace: float = GRACE_SECONDS) -> None:
        self._grace = grace
        self._over = asyncio.Event()

    def ring(self) -> None:
        """The process is about to stop."""
        asyncio.get_running_loop().call_later(self._grace, self._over.set)

    async def over(self) -> None:
        """Return when calls that are still under way have to end."""
        await self._over.wait()
