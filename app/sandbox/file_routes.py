"""The public routes for files."""

from starlette.responses import Response

from app.sandbox.answers import json_answer
from app.sandbox.forms import read_form
from app.sandbox.operation import Call, Operation


async def upload_file(call: Call) -> Response:
    """Take a file in, as reference media or as an attachment."""
    file = call.sandbox.files.upload(call.account, await read_form(call.request))
    return json_answer(file.as_json(), status=call.sandbox.settings.create_status)


async def get_file(call: Call) -> Response:
    """One file."""
    return json_answer(call.sandbox.files.get(call.account, call.request.path_params["file_id"]).as_json())


OPERATIONS = (
    Operation("files.create", "POST", "/files", "files:create", upload_file),
    Operation("files.get", "GET", "/files/{file_id}", "files:read", get_file),
)
