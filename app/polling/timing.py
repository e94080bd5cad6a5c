"""The schedule as it applies at this moment: to this model's category, and to whether callbacks can be expected."""

import random
from collections.abc import Callable
from datetime import datetime, timedelta

from app.ledger.models import Bounds
from app.ledger.poll_state import Held
from app.polling.categories import Categories
from app.polling.schedule import DOCUMENTED_FIRST, DOCUMENTED_LONGEST, LONGEST_ASKED, Next, Schedule


class Timing:
    """Decides on moments; nothing here waits or writes."""

    def __init__(
        self,
        schedule: Schedule,
        categories: Categories,
        *,
        callbacks_expected: Callable[[], bool],
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._schedule = schedule
        self._categories = categories
        self._callbacks_expected = callbacks_expected
        self._chance = chance

    def first_poll(self, model: str | None, now: datetime) -> datetime:
        """When a generation heard of now is to be polled if nothing else is heard: `app.ledger.decide.FirstPoll`."""
        if not self._callbacks_expected():
            return now + DOCUMENTED_FIRST
        return self._schedule.first_poll(now, category=self._categories.of(model))

    def to_pull_forward(self, now: datetime) -> tuple[datetime, datetime] | None:
        """While no callbacks can be expected: (when to poll, for whom that would otherwise be later than this)."""
        return None if self._callbacks_expected() else (now + DOCUMENTED_FIRST, now + DOCUMENTED_LONGEST)

    def bounds(self, now: datetime) -> Bounds:
        """The latest moments for which a poll can have been scheduled."""
        return self._schedule.bounds(now)

    def after_answer(self, held: Held, now: datetime) -> Next:
        """A poll found the generation open."""
        if not self._callbacks_expected():
            return self._schedule.after_answer_without_callbacks(held.first_seen_at, now=now, chance=self._chance())
        category = self._categories.of(held.model)
        return self._schedule.after_answer(held.first_seen_at, category=category, now=now, chance=self._chance())

    def after_failure(self, held: Held, now: datetime, *, retry_after: float | None) -> Next:
        """A poll brought nothing; `retry_after` is the fewest seconds that Rivya asked for."""
        failures = held.poll_failures + 1
        following = self._schedule.after_failure(held.first_seen_at, failures=failures, now=now, chance=self._chance())
        asked = now + min(timedelta(seconds=retry_after or 0), LONGEST_ASKED)
        return Next(max(following.poll_at or asked, asked), following.tracking)

    def after_not_found(self, held: Held, now: datetime) -> Next:
        """A poll was told that there is no such generation."""
        return self._schedule.after_not_found(
            held.first_seen_at,
            count=held.not_found_count + 1,
            since=held.not_found_since or now,
            now=now,
            chance=self._chance(),
        )
