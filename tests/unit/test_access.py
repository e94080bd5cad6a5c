"""Tokens: each role includes those below it, and only the very token is accepted."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from app.core.auth import Access, ApiToken, Caller, Role, Unauthorized
from app.core.errors import DatabaseUnavailable, Overloaded
from tests.support.clock import NOON, ManualClock

TOKEN = "0123456789abcdef"
ACCESS = Access([ApiToken.of("shop", Role.WRITE, TOKEN), ApiToken.of("ops", Role.ADMIN, TOKEN * 2)])


@pytest.mark.parametrize(
    ("role", "reach"),
    [
        (Role.READ, {Role.READ}),
        (Role.WRITE, {Role.READ, Role.WRITE}),
        (Role.ADMIN, {Role.READ, Role.WRITE, Role.ADMIN}),
        (Role.READ_OWN, {Role.READ, Role.READ_OWN}),
        (Role.WRITE_OWN, {Role.READ, Role.WRITE, Role.READ_OWN, Role.WRITE_OWN}),
    ],
)
def test_a_role_includes_those_below_it(role: Role, reach: set[Role]) -> None:
    assert {needed for needed in Role if role.allows(needed)} == reach


def test_a_token_tells_who_calls() -> None:
    assert ACCESS.caller(TOKEN) == Caller("shop", Role.WRITE)
    assert ACCESS.caller(TOKEN * 2) == Caller("ops", Role.ADMIN)


@pytest.mark.parametrize("token", [TOKEN[:-1], TOKEN + " ", TOKEN.upper(), "\x00", "\udcff", "x" * 100_000])
def test_nothing_but_the_very_token_is_accepted(token: str) -> None:
    with pytest.raises(Unauthorized) as refused:
        ACCESS.caller(token)
    assert refused.value.code == "api_key_invalid"
    assert TOKEN not in refused.value.message


@pytest.mark.parametrize("token", [None, ""])
def test_no_token_is_told_apart_from_a_wrong_one(token: str | None) -> None:
    with pytest.raises(Unauthorized) as refused:
        ACCESS.caller(token)
    assert refused.value.code == "api_key_missing"


def test_without_tokens_nobody_is_let_in() -> None:
    with pytest.raises(Unauthorized):
        Access([]).caller(TOKEN)


@pytest.mark.parametrize(
    ("changes", "seconds", "code"),
    [
        ({}, 0, None),
        ({"valid_until": NOON + timedelta(seconds=5)}, 4.9, None),
        ({"valid_until": NOON + timedelta(seconds=5)}, 5, "api_key_expired"),
        ({"is_revoked": True}, 0, "api_key_revoked"),
    ],
)
def test_a_managed_token_is_accepted_until_it_expires_or_is_revoked(
    changes: dict[str, Any], seconds: float, code: str | None
) -> None:
    clock = ManualClock()
    access = Access([], clock)
    access.replace([replace(ApiToken.of("shop", Role.WRITE, TOKEN), **changes)])
    clock.advance(seconds=seconds)
    if code is None:
        assert access.caller(TOKEN) == Caller("shop", Role.WRITE)
    else:
        with pytest.raises(Unauthorized) as refused:
            access.caller(TOKEN)
        assert refused.value.code == code


def test_while_it_is_not_known_what_was_revoked_managed_tokens_get_503_and_those_of_the_settings_work() -> None:
    clock = ManualClock()
    access = Access([ApiToken.of("ops", Role.ADMIN, TOKEN)], clock)
    with pytest.raises(DatabaseUnavailable):
        access.caller("rcv_unread")
    managed = ApiToken.of("shop", Role.WRITE, "rcv_one")
    access.replace([managed])
    assert access.caller("rcv_one").name == "shop"
    clock.advance(seconds=11)
    with pytest.raises(DatabaseUnavailable):
        access.caller("rcv_one")
    assert access.caller(TOKEN).name == "ops"
    access.confirm()
    assert access.caller("rcv_one").name == "shop"


def test_a_token_of_the_settings_wins_over_a_managed_one_with_the_same_secret() -> None:
    access = Access([ApiToken.of("ops", Role.ADMIN, TOKEN)])
    access.replace([ApiToken.of("other", Role.READ, TOKEN)])
    assert access.caller(TOKEN).name == "ops"
    assert access.take_used() == set()


async def test_what_runs_for_a_token_ends_when_it_is_revoked_and_runs_on_for_others() -> None:
    access = Access([])
    one, other = (ApiToken.of(name, Role.READ, name) for name in ("one", "other"))
    access.replace([one, other])
    running = [asyncio.create_task(_run_for(access, access.caller(name))) for name in ("one", "one", "other")]
    await asyncio.sleep(0)
    access.replace([replace(one, is_revoked=True), other])
    done, waiting = await asyncio.wait(running, return_when=asyncio.ALL_COMPLETED, timeout=1)
    assert [task.result() for task in done] == ["api_key_revoked"] * 2
    (task,) = waiting
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert not access._watchers


async def _run_for(access: Access, caller: Caller) -> str:
    try:
        async with access.while_valid(caller):
            await asyncio.Event().wait()
    except Unauthorized as error:
        return error.code
    raise AssertionError("it never ends by itself")


def test_a_kept_token_does_not_show_itself() -> None:
    assert TOKEN not in repr(ApiToken.of("shop", Role.WRITE, TOKEN))


async def test_a_token_waits_a_limited_number_of_times_at_once() -> None:
    access = Access([ApiToken.of("shop", Role.WRITE, TOKEN), ApiToken.of("ops", Role.ADMIN, TOKEN * 2)])
    access.most_waiting, shop, ops = 2, access.caller(TOKEN), access.caller(TOKEN * 2)
    end = access.begin_wait(shop)
    async with access.while_waiting(shop), access.while_waiting(ops):
        with pytest.raises(Overloaded):
            async with access.while_waiting(shop):
                pass
        end()
        async with access.while_waiting(shop):
            pass
    assert access.may_wait(shop)
    assert not access._waiting
