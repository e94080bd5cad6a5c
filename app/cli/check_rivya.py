"""What `rivya-receiver check` finds at Rivya: it answers, it takes our key, and the key has each scope we need."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from app.cli.check_line import Line
from app.core.clock import SystemClock
from app.core.ids import uuid7
from app.rivya.client import RivyaClient
from app.rivya.errors import RivyaError, RivyaForbidden, RivyaRateLimited, RivyaRefused, RivyaUnauthorized

# An id that no generation has, and a body that names no model: refused, but only after the scope was looked at.
_NO_GENERATION = "task_that_does_not_exist"
_NO_CREATE = b"{}"

_Call = Callable[[], Awaitable[Any]]


async def key(client: RivyaClient) -> AsyncIterator[Line]:
    """Rivya can be reached, our key is valid, and it has the scopes of what we call."""
    yield await _reachable(client)
    calls = _calls(client)
    valid = await _valid(calls["generations:read"])
    yield valid
    for scope, call in calls.items():
        yield await _scope(scope, call) if valid.ok else Line(f"scope {scope}", False, "unknown until the key is valid")


def _calls(client: RivyaClient) -> dict[str, _Call]:
    """A call for each scope, none of which changes anything."""
    # A fresh key each time: what an earlier check was answered must not be answered again.
    idempotency_key = f"check-{uuid7(SystemClock().now())}"
    return {
        "generations:read": lambda: client.get_generation(_NO_GENERATION),
        "generations:create": lambda: client.create_generation(_NO_CREATE, idempotency_key=idempotency_key),
        "webhooks:manage": client.list_endpoints,
    }


async def _reachable(client: RivyaClient) -> Line:
    name = "Rivya reachable"
    try:
        models = await client.models()
    except RivyaRefused as error:
        return Line(name, True, f"answers, though not with its models ({error.code})")
    except RivyaError as error:
        return Line(name, False, f"{error}; see RIVYA_BASE_URL")
    return Line(name, True, f"lists {len(models)} models")


async def _valid(call: _Call) -> Line:
    name = "API key valid"
    try:
        await call()
    except RivyaUnauthorized as error:
        return Line(name, False, f"{error.code}; see RIVYA_API_KEY")
    except RivyaRateLimited as error:
        return Line(name, False, f"unknown: {error}")
    except RivyaRefused:
        return Line(name, True, "accepted")  # refused for another reason, which only a valid key gets to hear
    except RivyaError as error:
        return Line(name, False, f"unknown: {error}")
    return Line(name, True, "accepted")


async def _scope(scope: str, call: _Call) -> Line:
    name = f"scope {scope}"
    try:
        await call()
    except RivyaForbidden as error:
        return Line(name, False, f"{error.code}; give the key this scope at Rivya")
    except (RivyaUnauthorized, RivyaRateLimited) as error:
        return Line(name, False, f"unknown: {error}")
    except RivyaRefused:
        return Line(name, True, "granted")  # it was looked at, and found not to name anything
    except RivyaError as error:
        return Line(name, False, f"unknown: {error}")
    return Line(name, True, "granted")
