"""The public routes for chat: a turn at once or as a stream, and the sessions."""

from starlette.responses import Response

from app.sandbox.answers import json_answer
from app.sandbox.dialects import tell
from app.sandbox.operation import Call, Operation
from app.sandbox.streaming import EventStream


async def complete(call: Call) -> Response:
    """One turn, answered whole."""
    key = call.request.headers.get("idempotency-key")
    return json_answer(call.sandbox.chat.turn(call.account, await call.body(), key=key))


async def stream(call: Call) -> Response:
    """One turn, answered as server-sent events in the dialect that the settings choose."""
    sandbox, key = call.sandbox, call.request.headers.get("idempotency-key")
    completion = sandbox.chat.turn(call.account, await call.body(), key=key)
    return EventStream(
        sandbox.streams,
        sandbox.streams.begin(completion["id"]),
        tell(completion, sandbox.settings.stream_dialect),
        pause=sandbox.settings.stream_pause,
        fault=sandbox.faults.take_stream(),
    )


async def list_sessions(call: Call) -> Response:
    """The account's sessions, newest first."""
    sessions = reversed(call.sandbox.chat.of(call.account))
    return call.listed([session.as_json() for session in sessions])


async def get_session(call: Call) -> Response:
    """One session with all that was said."""
    return json_answer(call.sandbox.chat.get(call.account, call.request.path_params["session_id"]).with_messages())


OPERATIONS = (
    Operation("chat.complete", "POST", "/chat/completions", "chat:create", complete),
    Operation("chat.stream", "POST", "/chat/completions/stream", "chat:create", stream),
    Operation("chat.sessions", "GET", "/chat/sessions", "chat:read", list_sessions),
    Operation("chat.session", "GET", "/chat/sessions/{session_id}", "chat:read", get_session),
)
