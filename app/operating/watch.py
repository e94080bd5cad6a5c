"""Notices silence: measures the alarms every few seconds, apart from every request, and tells when one is crossed."""

from collections.abc import Callable, Mapping
from typing import Final

from app.core.clock import Clock
from app.core.errors import Finding
from app.operating.alarms import Alarm, crossed, measure
from app.operating.look import Look
from app.operating.measures import note_cleared, note_crossed, show, show_seen
from app.operating.telling import describe

SECONDS_BETWEEN_LOOKS: Final = 5.0


class Watch:
    """`turn` is one turn of a supervised loop; every replica runs it, and each tells what it sees."""

    def __init__(
        self,
        look: Look,
        thresholds: Mapping[Alarm, float],
        *,
        clock: Clock,
        poll_errors: Callable[[], int],
        needs_leader: bool,
    ) -> None:
        self._look = look
        self._thresholds = thresholds
        self._clock = clock
        self._poll_errors = poll_errors
        self._needs_leader = needs_leader
        """False where nothing is registered: an endpoint made by hand needs nobody to look after it."""
        self._leader_seen = clock.monotonic()
        self._values: dict[Alarm, float] = {}
        self._raised: frozenset[Alarm] = frozenset()

    async def turn(self) -> float:
        """Measure, show and tell; returns the seconds until the next turn. Raises `DatabaseUnavailable`."""
        now = self._clock.now()
        seen = await self._look.at(now)
        has_leader = not self._needs_leader or seen.has_leader(now)
        if has_leader:
            self._leader_seen = self._clock.monotonic()
        leaderless = self._clock.monotonic() - self._leader_seen
        self._values = measure(seen, now, poll_errors=self._poll_errors(), leaderless=leaderless)
        raised = crossed(self._values, self._thresholds)
        show(self._values, self._thresholds, raised=raised)
        show_seen(seen, at=now.timestamp(), has_leader=has_leader)
        self._tell(raised)
        return SECONDS_BETWEEN_LOOKS

    async def findings(self) -> list[Finding]:
        """For /readyz, from the last look; nothing before the first."""
        return describe(self._values, self._thresholds)

    def _tell(self, raised: frozenset[Alarm]) -> None:
        for alarm in sorted(raised - self._raised):
            note_crossed(alarm, value=self._values[alarm], threshold=self._thresholds[alarm])
        for alarm in sorted(self._raised - raised):
            note_cleared(alarm, value=self._values[alarm], threshold=self._thresholds[alarm])
        self._raised = raised
