"""Resolves what was sent and never answered, in the background: again and again, always under the same key."""

import asyncio

from app.core.clock import Clock
from app.submission.allowance import RateLimiter
from app.submission.sender import Sender
from app.submission.submission import Submission
from app.submission.submissions import Submissions

_AT_ONCE = 10
_SECONDS_WHILE_BUSY = 0.25
_SECONDS_WHILE_IDLE = 1.0


class Retrier:
    """`turn` is one turn of a supervised loop; any number of replicas may run it."""

    def __init__(self, submissions: Submissions, sender: Sender, limiter: RateLimiter, clock: Clock) -> None:
        self._submissions = submissions
        self._sender = sender
        self._limiter = limiter
        self._clock = clock

    async def turn(self) -> float:
        """Send again what is due, as far as the budget goes; returns the seconds until the next turn."""
        claimed = await self._claim()
        results = await asyncio.gather(*map(self._send, claimed), return_exceptions=True)
        for error in filter(None, results):  # only once all are done: none is left running unseen
            raise error
        return _SECONDS_WHILE_BUSY if claimed else _SECONDS_WHILE_IDLE

    async def _claim(self) -> list[Submission]:
        claimed: list[Submission] = []
        while len(claimed) < _AT_ONCE and await self._submissions.is_due(now=self._clock.now()):
            if not await self._limiter.acquire():
                break
            submission = await self._submissions.claim_due(now=self._clock.now())
            if submission is None:  # another replica was faster
                break
            claimed.append(submission)
        return claimed

    async def _send(self, submission: Submission) -> None:
        sent = await self._sender.send(submission, in_doubt=True)
        if sent.error is not None:
            await self._limiter.record_error(sent.error)
        else:
            await self._limiter.record_success()
