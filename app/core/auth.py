"""Who may call: bearer tokens of ours, each with a name and a role, kept as digests and compared in constant time."""

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
        """This role may do what `needed` may."""
        order = list(Role)
        return order.index(self) >= order.index(needed)


@dataclass(frozen=True, slots=True)
class ApiToken:
    """A token as kept: its digest, never the token."""

    name: str
    role: Role
    digest: bytes

    @classmethod
    def of(cls, name: str, role: Role, token: str) -> "ApiToken":
        """Digest `token`."""
        return cls(name, role, hashlib.sha256(token.encode()).digest())


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a request comes from."""

    name: str
    role: Role


class Unauthorized(ServiceError):
    """No token, or one that is not ours."""

    status = 401
    code = "api_key_invalid"


class Forbidden(ServiceError):
    """A token whose role does not reach that far."""

    status = 403
    code = "api_scope_denied"


class Access:
    """The tokens that are accepted."""

    def __init__(self, tokens: Sequence[ApiToken]) -> None:
        self._tokens = tuple(tokens)

    def caller(self, token: str | None) -> Caller:
        """Who holds `token`. Raises `Unauthorized`. Takes the same time whichever token matches."""
        if not token:
            message = "Send one of the receiver's tokens: Authorization: Bearer <token>."
            raise Unauthorized(message, code="api_key_missing")
        digest = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        found: ApiToken | None = None
        for known in self._tokens:
            if hmac.compare_digest(known.digest, digest):
                found = known
        if found is None:
            message = "This token is not one of the receiver's."
            raise Unauthorized(message)
        return Caller(found.name, found.role)

    def require(self, role: Role) -> Callable[..., Awaitable[Caller]]:
        """A FastAPI dependency: the caller, whose role is at least `role`; else 401 or 403."""

        async def caller(
            request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]
        ) -> Caller:
            found = self.caller(credentials.credentials if credentials is not None else None)
            request.state.caller = found  # known before it is refused: `app.core.middleware` counts calls by caller
            if not found.role.allows(role):
                message = f"Token {found.name} has the role {found.role}; {role} is needed."
                raise Forbidden(message)
            return found

        return caller
