"""Killed at random moments under load: no answer is lost, nothing is paid twice, all work is taken up."""

from pathlib import Path

from tests.soak.killing import Outcome, kill_under_load
from tests.support.fork_client import fork_server


def _assert_kept(outcome: Outcome, *, kills: int) -> None:
    verdict = outcome.verdict
    print(f"\n{outcome.kills} kills: {dict(outcome.account.answers)}, {outcome.polls} polls")  # noqa: T201
    assert verdict.is_clean, verdict
    assert outcome.kills == kills
    assert sum(outcome.account.accepted.values()) > 20  # or nothing was tried
    assert len(outcome.account.created) > 5
    assert verdict.missed > 0


async def test_two_replicas_on_postgresql_killed_at_random_lose_nothing_and_pay_once(
    postgres_url: str, tmp_path: Path
) -> None:
    async with fork_server() as parent:
        outcome = await kill_under_load(parent, postgres_url, tmp_path, size=2, kills=8, seed=1, has_time=False)
    _assert_kept(outcome, kills=8)


async def test_one_process_on_sqlite_killed_at_random_loses_nothing_and_pays_once(
    sqlite_url: str, tmp_path: Path
) -> None:
    async with fork_server() as parent:
        outcome = await kill_under_load(parent, sqlite_url, tmp_path, size=1, kills=6, seed=2, has_time=False)
    _assert_kept(outcome, kills=6)
