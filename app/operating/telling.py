"""Alarms in words, as `/readyz` shows them; pure."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from app.core.errors import Finding
from app.operating.alarms import Alarm

_WORDS: Final = MappingProxyType(
    {
        Alarm.CALLBACKS_MISSED: (
            "of the outcomes of the last hour were found by poll",
            "callbacks do not come: see `deliveries` and `endpoint`, and whether Rivya reaches RECEIVER_PUBLIC_URL",
        ),
        Alarm.SILENCE: (
            "without a verified delivery while generations are open",
            "see `deliveries`, `refusals`, and whether Rivya reaches RECEIVER_PUBLIC_URL",
        ),
        Alarm.REFUSALS: (
            "deliveries refused since the last verified one",
            "the secret or the signature scheme does not fit: see `deliveries`, and `deliveries.refused` in the log",
        ),
        Alarm.OVERDUE: (
            "generations wait for a poll that should have begun",
            "see `polling`; raise RECEIVER_POLL_RATE if Rivya allows it",
        ),
        Alarm.SUBMISSION: (
            "since the oldest create whose outcome is unknown",
            "it is retried under its own key; see `submission.unknown` in the log",
        ),
        Alarm.POLL_ERRORS: ("polls in a row brought nothing", "Rivya fails or is away: see `poll.failed` in the log"),
        Alarm.LEADER: (
            "without a replica that looks after the registration",
            "see `loop.failed` and `endpoint.attempt_failed` in the log",
        ),
    }
)
_SECONDS: Final = frozenset({Alarm.SILENCE, Alarm.SUBMISSION, Alarm.LEADER})


def describe(values: Mapping[Alarm, float], thresholds: Mapping[Alarm, float]) -> list[Finding]:
    """One finding for each alarm; none of them makes the service unready, since it takes deliveries all the same."""
    return [_finding(alarm, value, thresholds[alarm]) for alarm, value in values.items()]


def _finding(alarm: Alarm, value: float, threshold: float) -> Finding:
    what, remedy = _WORDS[alarm]
    is_over = value > threshold
    detail = f"{_shown(alarm, value)} {what}, {_shown(alarm, threshold)} at most"
    return Finding(alarm.value, ok=not is_over, detail=f"{detail}; {remedy}" if is_over else detail, is_required=False)


def _shown(alarm: Alarm, value: float) -> str:
    if alarm is Alarm.CALLBACKS_MISSED:
        return f"{value:.0%}"
    return f"{value:.0f} s" if alarm in _SECONDS else f"{value:.0f}"
