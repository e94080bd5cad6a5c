"""Bearer tokens of our own, each with a name and a role; stored as digests and compared in constant time."""

import hashlib
import hmac
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from fastapi import Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from app.core.errors import ServiceError

_bearer = HTTPBearer(auto_error=False, description="One of RECEIVER_API_TOKENS.")


class Role(StrEnum):
    """What a token may do; each role includes those before it."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"

    def allows(self, needed: "Role") -> bool:
        """Whether this role includes `needed`."""
        order = list(Role)
        return order.index(self) >= order.index(needed)


@dataclass(frozen=True, slots=True)
class ApiToken:
    """The name, role and SHA-256 digest of a token; the token itself is not stored."""

    name: str
    role: Role
    digest: bytes

    @classmethod
    def of(cls, name: str, role: Role, token: str) -> "ApiToken":
        """An `ApiToken` with the digest of `token`."""
        return cls(name, role, hashlib.sha256(token.encode()).digest())


@dataclass(frozen=True, slots=True)
class Caller:
    """The name and role of the token that a request carries."""

    name: str
    role: Role


class Unauthorized(ServiceError):
    """401: the request has no token, or an unknown one."""

    status = 401
    code = "api_key_invalid"


class Forbidden(ServiceError):
    """403: the role of the token does not include the required one."""

    status = 403
    code = "api_scope_denied"


class Access:
    """Checks requests against the accepted tokens."""

    def __init__(self, tokens: Sequence[ApiToken]) -> None:
        self._tokens = tuple(tokens)

    def caller(self, token: str | None) -> Caller:
        """The caller with this token. Raises `Unauthorized`. Takes the same time whichever token matches."""
        if not token:
            raise Unauthorized(
                "Send one of the receiver's tokens: Authorization: Bearer <token>.", code="api_key_missing"
            )
        digest = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        matches = [known for known in self._tokens if hmac.compare_digest(known.digest, digest)]
        if not matches:
            raise Unauthorized("This token is not one of the receiver's.")
        return Caller(matches[-1].name, matches[-1].role)

    def is_admin(self, request: Request) -> bool:
        """Whether an open request carries a token of the role admin, and may be shown more."""
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        try:
            return kind.lower() == "bearer" and self.caller(token.strip()).role is Role.ADMIN
        except Unauthorized:
            return False

    def require(self, role: Role) -> Callable[..., Awaitable[Caller]]:
        """A FastAPI dependency: the caller. It raises `Unauthorized`, or `Forbidden` for a role below `role`."""

        async def authorize(
            request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]
        ) -> Caller:
            caller = self.caller(credentials.credentials if credentials is not None else None)
            request.state.caller = caller  # set before a 403: `app.core.middleware` counts calls by caller
            if not caller.role.allows(role):
                raise Forbidden(f"Token {caller.name} has the role {caller.role}; {role} is needed.")
            return caller

        return authorize
