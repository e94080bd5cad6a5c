"""The public routes for webhook endpoints, their deliveries and their events."""

from starlette.responses import Response

from app.sandbox.answers import json_answer
from app.sandbox.endpoint import EVENT_TYPES, Endpoint
from app.sandbox.operation import Call, Operation


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
    delivery = await call.sandbox.reporter.test(_endpoint(call))
    return json_answer(delivery.as_json())


async def list_deliveries(call: Call) -> Response:
    """The endpoint's deliveries, newest first; those that were dropped are on no log of Rivya's."""
    endpoint = _endpoint(call)
    log = reversed(call.sandbox.courier.log)
    return call.listed([row.as_json() for row in log if row.endpoint_id == endpoint.id and row.status != "dropped"])


async def list_events(call: Call) -> Response:
    """What happened, newest first, or which types there are: the settings choose."""
    if call.sandbox.settings.webhook_events == "types":
        return call.listed([{"type": kind, "object": "webhook_event_type"} for kind in EVENT_TYPES])
    events = reversed(call.sandbox.reporter.events.values())
    return call.listed([event.as_json() for event in events if event.account == call.account])


_SCOPE = "webhooks:manage"
_ONE = "/webhooks/{endpoint_id}"

OPERATIONS = (
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
