"""The public routes for models, credits and generations."""

from starlette.responses import Response

from app.sandbox.answers import json_answer
from app.sandbox.operation import Call, Operation


async def list_models(call: Call) -> Response:
    """The catalogue, for everybody; documented as a list object whatever the settings say."""
    models = call.sandbox.generations.models.values()
    return json_answer({"object": "list", "data": [model.as_json() for model in models]})


async def get_credits(call: Call) -> Response:
    """What the account can spend."""
    return json_answer({"current_credits": call.sandbox.purse.credits(call.account)})


async def create_generation(call: Call) -> Response:
    """Start a generation, once per idempotency key."""
    sandbox, key = call.sandbox, call.request.headers.get("idempotency-key")
    answer = await sandbox.generations.create(call.account, await call.body(), key=key)
    return json_answer(answer, status=sandbox.settings.create_status)


async def get_generation(call: Call) -> Response:
    """A generation as it is now; the poll is written down beside it."""
    generation = call.sandbox.generations.get(call.account, call.request.path_params["generation_id"])
    generation.polls.append(call.sandbox.calls.now())
    return json_answer(call.sandbox.generations.told(generation))


OPERATIONS = (
    Operation("models.list", "GET", "/models", None, list_models),
    Operation("credits.get", "GET", "/credits", "credits:read", get_credits),
    Operation("generations.create", "POST", "/generations", "generations:create", create_generation),
    Operation("generations.get", "GET", "/generations/{generation_id}", "generations:read", get_generation),
)
