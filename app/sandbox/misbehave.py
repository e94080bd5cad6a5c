"""Spoils the answer to one call as an `ApiFault` says."""

from collections.abc import Awaitable, Callable

from starlette.responses import Response

from app.sandbox.altering import altered
from app.sandbox.answers import NoAnswer, refusal
from app.sandbox.faults import ApiFault
from app.sandbox.work import Work

_CODE_OF_STATUS = {
    400: "validation_failed",
    401: "api_key_invalid",
    403: "api_scope_denied",
    404: "not_found",
    409: "idempotency_conflict",
    429: "rate_limited",
    503: "public_api_disabled",
}
_GARBAGE = b"<html>\xff\xfe this is not JSON"


async def misbehave(fault: ApiFault, act: Callable[[], Awaitable[Response]], work: Work) -> Response:
    """The spoiled answer; whether the work was done depends on the fault's `when`."""
    done = await act() if fault.when == "after" else None
    if fault.hang:
        await work.sleep(fault.hang)
    if fault.connection is not None:
        return NoAnswer(fault.connection)
    if fault.status is not None:
        return _spoiled(fault, fault.status)
    answer = done or await act()
    return answer if fault.alter is None else altered(answer, fault.alter)


def _spoiled(fault: ApiFault, status: int) -> Response:
    match fault.body:
        case "error":
            code = fault.code or _CODE_OF_STATUS.get(status, "internal_error")
            response = refusal(code, "The sandbox was told to answer so.", status=status)
        case "garbage":
            response = Response(_GARBAGE, status, media_type="text/html")
        case "empty":
            response = Response(b"", status)
    if fault.retry_after is not None:
        response.headers["Retry-After"] = str(fault.retry_after)
    return response
