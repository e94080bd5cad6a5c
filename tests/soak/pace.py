"""What paces a load: a wait for the moment at which it is over, which ends sooner."""

import asyncio
from contextlib import suppress


async def until(over: asyncio.Event, *, within: float) -> None:
    """Return as soon as it is over, after so many seconds at the latest."""
    with suppress(TimeoutError):
        async with asyncio.timeout(within):
            await over.wait()
