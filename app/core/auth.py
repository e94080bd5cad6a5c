"""Bearer tokens of our own, each with a name and a role; stored as digests and compared in constant time."""

import asyncio
import hashlib
import hmac
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import partial
from typing import Annotated, Any, Final

from fastapi import Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client import Counter

from app.core.clock import Clock, SystemClock
from app.core.errors import DatabaseUnavailable, Overloaded, ServiceError

REFUSALS = Counter("receiver_token_refusals", "Calls refused because of their token, by the error's code.", ["reason"])

PREFIX: Final = "rcv_"
"""Of every managed token."""
_STALE_AFTER: Final = 10.0
"""Seconds without the database after which managed tokens are not accepted: they may have been revoked since."""

_bearer = HTTPBearer(auto_error=False, description="A token of the receiver's: managed, or of RECEIVER_API_TOKENS.")


class Role(StrEnum):
    """What a token may do. Those that end in `own` see and change only what the token itself submitted or tracked."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"
    READ_OWN = "read-own"
    WRITE_OWN = "write-own"

    @property
    def is_fenced(self) -> bool:
        """Whether it reaches only what belongs to the token itself."""
        return self in (Role.READ_OWN, Role.WRITE_OWN)

    def allows(self, needed: "Role") -> bool:
        """Whether a route that needs `needed` lets this role in; what a fenced one sees there is another question."""
        return needed in _INCLUDED[self]


_INCLUDED: Final = {
    Role.READ_OWN: {Role.READ_OWN, Role.READ},
    Role.READ: {Role.READ},
    Role.WRITE_OWN: {Role.WRITE_OWN, Role.READ_OWN, Role.WRITE, Role.READ},
    Role.WRITE: {Role.WRITE, Role.READ},
    Role.ADMIN: {Role.ADMIN, Role.WRITE, Role.READ},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLimits:
    """What a token may spend and call; None is no limit. Days, months and minutes are those of UTC."""

    credits_per_day: float | None = None
    credits_per_month: float | None = None
    models: tuple[str, ...] | None = None
    """The models that it may use."""
    rate: int | None = None
    """Creates and chat turns a minute."""


NO_LIMITS: Final = TokenLimits()


@dataclass(frozen=True, slots=True)
class ApiToken:
    """The name, role and SHA-256 digest of a token; the token itself is not stored."""

    name: str
    role: Role
    digest: bytes
    limits: TokenLimits = NO_LIMITS
    valid_until: datetime | None = None
    is_revoked: bool = False

    @classmethod
    def of(cls, name: str, role: Role, token: str) -> "ApiToken":
        """An `ApiToken` with the digest of `token`."""
        return cls(name, role, digest_of(token))


def digest_of(token: str) -> bytes:
    """The SHA-256 digest of a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


@dataclass(frozen=True, slots=True)
class Caller:
    """The token that a request carries."""

    name: str
    role: Role
    limits: TokenLimits = NO_LIMITS
    digest: bytes = field(default=b"", repr=False, compare=False)

    @property
    def owner(self) -> str | None:
        """The name to which everything that it may see belongs; None where it may see everything."""
        return self.name if self.role.is_fenced else None


class Unauthorized(ServiceError):
    """401: the request has no token, or one that is unknown, revoked or expired."""

    status = 401
    code = "api_key_invalid"


class Forbidden(ServiceError):
    """403: the role of the token does not include the required one."""

    status = 403
    code = "api_scope_denied"


def _caller(token: ApiToken) -> Caller:
    return Caller(token.name, token.role, token.limits, token.digest)


class Access:
    """Checks requests against the accepted tokens: those of the settings, and the managed ones that `replace` sets."""

    def __init__(self, tokens: Sequence[ApiToken], clock: Clock | None = None) -> None:
        self.given = tuple(tokens)
        """The tokens of the settings."""
        self._clock = clock or SystemClock()
        self._given = {token.digest: _caller(token) for token in tokens}
        self._managed: dict[bytes, tuple[ApiToken, Caller]] = {}
        self.has_several_names = len(self.given) > 1
        """Whether tokens of more than one name may call."""
        self._confirmed_at: float | None = None
        self._watchers: defaultdict[bytes, set[Callable[[], None]]] = defaultdict(set)
        self._used: set[str] = set()
        self.most_waiting = 2000
        """Calls of one token that wait at once, in long polls and streams: each keeps its connection."""
        self._waiting: defaultdict[str, int] = defaultdict(int)
        self.on_admin_refused: Callable[[Request], None] | None = None
        """Called with each call of an admin's route by a token that may not."""
        self.on_admin_act: Callable[[Request], Awaitable[None]] | None = None
        """Called before each act of an admin: a call of an admin's route that is no GET."""

    def replace(self, managed: Iterable[ApiToken]) -> None:
        """Accept these managed tokens from now on."""
        self._managed = {token.digest: (token, _caller(token)) for token in managed}
        in_use = (token for token, _ in self._managed.values() if not token.is_revoked)
        self.has_several_names = len({token.name for token in (*self.given, *in_use)}) > 1
        self.confirm()

    def confirm(self) -> None:
        """The managed tokens are still those of the database. Ends what runs for tokens that are not valid any more."""
        self._confirmed_at = self._clock.monotonic()
        for digest in list(self._watchers):
            try:
                self.authenticate(digest)
            except Unauthorized:
                for end in self._watchers.pop(digest):
                    end()

    def take_used(self) -> set[str]:
        """The names of the managed tokens that were used since the last call."""
        used, self._used = self._used, set()
        return used

    def caller(self, token: str | None) -> Caller:
        """The caller with this token. Raises `Unauthorized`. Takes the same time whichever token matches.

        Raises `DatabaseUnavailable` for a managed token while it is not known whether it is revoked.
        """
        if not token:
            raise Unauthorized(
                "Send one of the receiver's tokens: Authorization: Bearer <token>.", code="api_key_missing"
            )
        if self._confirmed_at is None and token.startswith(PREFIX):
            raise DatabaseUnavailable("The tokens are not read yet.")
        return self.authenticate(digest_of(token))

    def authenticate(self, digest: bytes) -> Caller:
        """The caller whose token has this digest; raises what `caller` raises.

        The look-up tells nothing by its time: nobody can choose the digest of a token that he does not know, and each
        process places the keys of its dictionaries by a random key of its own.
        """
        given = self._given.get(digest)
        if given is not None and hmac.compare_digest(given.digest, digest):
            return given
        managed = self._managed.get(digest)
        if managed is None or not hmac.compare_digest(managed[0].digest, digest):
            raise Unauthorized("This token is not one of the receiver's.")
        self._check(managed[0])
        self._used.add(managed[0].name)
        return managed[1]

    def _check(self, managed: ApiToken) -> None:
        if managed.is_revoked:
            raise Unauthorized("This token was revoked.", code="api_key_revoked")
        if managed.valid_until is not None and managed.valid_until <= self._clock.now():
            raise Unauthorized("This token has expired.", code="api_key_expired")
        if self._confirmed_at is None or self._clock.monotonic() - self._confirmed_at > _STALE_AFTER:
            raise DatabaseUnavailable

    def _check_again(self, state: dict[str, Any]) -> None:
        """Raises `Unauthorized` if the token was revoked, or has expired, since the request began."""
        state["caller"] = self.authenticate(state["caller"].digest)

    def roles(self) -> dict[str, Role]:
        """The roles of the tokens that are accepted now, by their names."""
        now = self._clock.now()
        managed = (
            caller
            for token, caller in self._managed.values()
            if not token.is_revoked and (token.valid_until is None or now < token.valid_until)
        )
        return {caller.name: caller.role for caller in (*managed, *self._given.values())}

    def watch(self, caller: Caller, end: Callable[[], None]) -> Callable[[], None]:
        """Call `end` once as soon as the caller's token is not valid any more; returns a function that stops this."""
        if caller.digest in self._managed:
            self._watchers[caller.digest].add(end)
        return partial(self._unwatch, caller.digest, end)

    def _unwatch(self, digest: bytes, end: Callable[[], None]) -> None:
        if digest in self._watchers:
            self._watchers[digest].discard(end)
            if not self._watchers[digest]:
                del self._watchers[digest]

    @asynccontextmanager
    async def while_valid(self, caller: Caller) -> AsyncIterator[None]:
        """Cancel the block as soon as the caller's token is revoked or expires, and raise `Unauthorized` then.

        For whatever may take longer than a second: long polls and streams.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(None) as deadline:
                unwatch = self.watch(caller, lambda: deadline.reschedule(loop.time()))
                try:
                    yield
                finally:
                    unwatch()
        except TimeoutError:
            if deadline.expired():
                self.authenticate(caller.digest)
            raise

    def may_wait(self, caller: Caller) -> bool:
        """Whether another call of this token may wait."""
        return self._waiting.get(caller.name, 0) < self.most_waiting

    def begin_wait(self, caller: Caller) -> Callable[[], None]:
        """Count a call that waits; returns a function that ends this, to be called once."""
        self._waiting[caller.name] += 1
        return partial(self._end_wait, caller.name)

    def _end_wait(self, name: str) -> None:
        self._waiting[name] -= 1
        if not self._waiting[name]:
            del self._waiting[name]

    @asynccontextmanager
    async def while_waiting(self, caller: Caller) -> AsyncIterator[None]:
        """As `while_valid`, for a block that may wait for long. Raises `Overloaded` if too many of the token's do."""
        if not self.may_wait(caller):
            raise Overloaded(f"Token {caller.name} has {self.most_waiting} long polls and streams open: end one first.")
        end = self.begin_wait(caller)
        try:
            async with self.while_valid(caller):
                yield
        finally:
            end()

    def is_admin(self, request: Request) -> bool:
        """Whether an open request carries a token of the role admin, and may be shown more."""
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        try:
            return kind.lower() == "bearer" and self.caller(token.strip()).role is Role.ADMIN
        except ServiceError:
            return False

    async def authorize(self, request: Request, caller: Caller, role: Role) -> None:
        """Make `caller` the caller of this request. Raises `Forbidden` for a role below `role`."""
        request.state.caller = caller  # set before a 403: `app.core.middleware` counts calls by caller
        request.state.check_caller_again = self._check_again  # not bound to the request: a cycle
        if not caller.role.allows(role):
            REFUSALS.labels(Forbidden.code).inc()
            if role is Role.ADMIN and self.on_admin_refused is not None:
                self.on_admin_refused(request)
            raise Forbidden(f"Token {caller.name} has the role {caller.role}; {role} is needed.")
        is_act = role is Role.ADMIN and request.method not in {"GET", "HEAD"}
        if is_act and self.on_admin_act is not None:
            await self.on_admin_act(request)

    def require(self, role: Role) -> Callable[..., Awaitable[Caller]]:
        """A FastAPI dependency: the caller. It raises `Unauthorized`, or `Forbidden` for a role below `role`."""

        async def authorize(
            request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]
        ) -> Caller:
            try:
                caller = self.caller(credentials.credentials if credentials is not None else None)
            except Unauthorized as error:
                REFUSALS.labels(error.code).inc()
                raise
            await self.authorize(request, caller, role)
            return caller

        return authorize
