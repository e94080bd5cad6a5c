"""The public routes of the sandbox."""

from starlette.responses import Response

from app.sandbox.files import read_form
from app.sandbox.http import Call, Operation
from app.sandbox.responses import json_answer
from app.sandbox.settings import encode_event
from app.sandbox.streaming import EventStream
from app.sandbox.webhooks import EVENT_TYPES, Endpoint


async def list_models(call: Call) -> Response:
    """The catalogue, for everybody; documented as a list object whatever the settings say."""
    models = call.sandbox.generations.models.values()
    return json_answer({"object": "list", "data": [model.as_json() for model in models]})


async def get_credits(call: Call) -> Response:
    """What the account can spend."""
    return json_answer({"current_credits": call.sandbox.accounts.balance(call.account)})


async def create_generation(call: Call) -> Response:
    """Start a generation, once per idempotency key."""
    sandbox, key = call.sandbox, call.request.headers.get("idempotency-key")
    answer = await sandbox.generations.create(call.account, await call.body(), key=key)
    return json_answer(answer, status=sandbox.settings.create_status)


async def get_generation(call: Call) -> Response:
    """A generation as it is now; the poll is written down beside it."""
    generation = call.sandbox.generations.get(call.account, call.request.path_params["generation_id"])
    generation.polls.append(call.sandbox.calls.now())
    return json_answer(call.sandbox.generations.as_answered(generation))


GENERATIONS = (
    Operation("models.list", "GET", "/models", None, list_models),
    Operation("credits.get", "GET", "/credits", "credits:read", get_credits),
    Operation("generations.create", "POST", "/generations", "generations:create", create_generation),
    Operation("generations.get", "GET", "/generations/{generation_id}", "generations:read", get_generation),
)


# The public routes for chat: a turn at once or as a stream, and the sessions.


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
        encode_event(completion, sandbox.settings.stream_dialect),
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


CHAT = (
    Operation("chat.complete", "POST", "/chat/completions", "chat:create", complete),
    Operation("chat.stream", "POST", "/chat/completions/stream", "chat:create", stream),
    Operation("chat.sessions", "GET", "/chat/sessions", "chat:read", list_sessions),
    Operation("chat.session", "GET", "/chat/sessions/{session_id}", "chat:read", get_session),
)


# The public routes for files.


async def upload_file(call: Call) -> Response:
    """Take a file in, as reference media or as an attachment."""
    file = call.sandbox.files.upload(call.account, await read_form(call.request))
    return json_answer(file.as_json(), status=call.sandbox.settings.create_status)


async def get_file(call: Call) -> Response:
    """One file."""
    return json_answer(call.sandbox.files.get(call.account, call.request.path_params["file_id"]).as_json())


FILES = (
    Operation("files.create", "POST", "/files", "files:create", upload_file),
    Operation("files.get", "GET", "/files/{file_id}", "files:read", get_file),
)


# The public routes for webhook endpoints, their deliveries and their events.


def _endpoint(call: Call) -> Endpoint:
    return call.sandbox.endpoints.get(call.account, call.request.path_params["endpoint_id"])


async def list_endpoints(call: Call) -> Response:
    """The account's endpoints."""
    return call.listed([endpoint.as_json() for endpoint in call.sandbox.endpoints.of(call.account)])


async def create_endpoint(call: Call) -> Response:
    """Register; the only answer beside rotation's that tells the secret."""
    endpoint = call.sandbox.endpoints.create(call.account, await call.body())
    return json_answer(endpoint.with_secret(), status=call.sandbox.settings.create_status)


async def get_endpoint(call: Call) -> Response:
    """One endpoint."""
    return json_answer(_endpoint(call).as_json())


async def change_endpoint(call: Call) -> Response:
    """Change name, url, event types or status."""
    return json_answer(call.sandbox.endpoints.change(_endpoint(call), await call.body()).as_json())


async def delete_endpoint(call: Call) -> Response:
    """Remove."""
    endpoint = _endpoint(call)
    call.sandbox.endpoints.remove(endpoint)
    if call.sandbox.settings.delete_status == 204:
        return Response(status_code=204)
    return json_answer({"id": endpoint.id, "object": "webhook_endpoint", "deleted": True})


async def rotate_secret(call: Call) -> Response:
    """A new secret, told once."""
    return json_answer(call.sandbox.endpoints.rotate(_endpoint(call)).with_secret())


async def test_endpoint(call: Call) -> Response:
    """Send a test event; answered after its first attempt."""
    delivery = await call.sandbox.publisher.send_test(_endpoint(call))
    return json_answer(delivery.as_json())


async def list_deliveries(call: Call) -> Response:
    """The endpoint's deliveries, newest first; those that were dropped are on no log of Rivya's."""
    endpoint = _endpoint(call)
    log = reversed(call.sandbox.sender.log)
    return call.listed([row.as_json() for row in log if row.endpoint_id == endpoint.id and row.status != "dropped"])


async def list_events(call: Call) -> Response:
    """What happened, newest first, or which types there are: the settings choose."""
    if call.sandbox.settings.webhook_events == "types":
        return call.listed([{"type": kind, "object": "webhook_event_type"} for kind in EVENT_TYPES])
    events = reversed(call.sandbox.publisher.events.values())
    return call.listed([event.as_json() for event in events if event.account == call.account])


_SCOPE = "webhooks:manage"
_ONE = "/webhooks/{endpoint_id}"

WEBHOOKS = (
    Operation("webhooks.list", "GET", "/webhooks", _SCOPE, list_endpoints),
    Operation("webhooks.create", "POST", "/webhooks", _SCOPE, create_endpoint),
    Operation("webhooks.get", "GET", _ONE, _SCOPE, get_endpoint),
    Operation("webhooks.update", "PATCH", _ONE, _SCOPE, change_endpoint),
    Operation("webhooks.delete", "DELETE", _ONE, _SCOPE, delete_endpoint),
    Operation("webhooks.rotate", "POST", f"{_ONE}/rotate-secret", _SCOPE, rotate_secret),
    Operation("webhooks.test", "POST", f"{_ONE}/test", _SCOPE, test_endpoint),
    Operation("webhooks.deliveries", "GET", f"{_ONE}/deliveries", _SCOPE, list_deliveries),
    Operation("webhook_events.list", "GET", "/webhook-events", _SCOPE, list_events),
)
