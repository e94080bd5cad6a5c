"""Tokens: each role includes those below it, and only the very token is accepted."""

import pytest

from app.core.auth import Access, ApiToken, Caller, Role, Unauthorized

TOKEN = "0123456789abcdef"
ACCESS = Access([ApiToken.of("shop", Role.WRITE, TOKEN), ApiToken.of("ops", Role.ADMIN, TOKEN * 2)])


@pytest.mark.parametrize(
    ("role", "reach"),
    [
        (Role.READ, {Role.READ}),
        (Role.WRITE, {Role.READ, Role.WRITE}),
        (Role.ADMIN, {Role.READ, Role.WRITE, Role.ADMIN}),
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


def test_a_kept_token_does_not_show_itself() -> None:
    assert TOKEN not in repr(ApiToken.of("shop", Role.WRITE, TOKEN))
