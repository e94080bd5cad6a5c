"""The OpenAPI schemas of the relayed calls: what Rivya documents, with room for further members."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

_MODEL: dict[str, Any] = {
    "id": "z-image",
    "display_name": "Z-Image",
    "category": "image",
    "runtime": "async_task",
    "base_credits": 1,
    "api_status": "available",
}
_TURN: dict[str, Any] = {"model": "gpt-5-2-chat", "message": "Three names for a red fox, please."}
_COMPLETION: dict[str, Any] = {
    "id": "chatcmpl_1",
    "object": "chat.completion",
    "session_id": "chat_1",
    "model": "gpt-5-2-chat",
    "created_at": "2026-05-10T00:00:00.000Z",
    "message": {"id": "msg_1", "role": "assistant", "content": "Rusty, Ember, Todd."},
    "usage": {"input_tokens": 7, "output_tokens": 5, "total_tokens": 12},
    "credits": {"reserved": 3, "final": 2},
}


def _example(value: dict[str, Any]) -> ConfigDict:
    return ConfigDict(extra="allow", json_schema_extra={"example": value})


class RivyaModel(BaseModel):
    """An entry of Rivya's catalogue; it has more members than these, and new ones may come."""

    model_config = _example(_MODEL)

    id: str
    display_name: str
    category: str = Field(description="image, video, audio or chat")
    runtime: str
    base_credits: float
    api_status: str = Field(description="available, coming_soon or studio_only")


class RivyaModels(BaseModel):
    """Rivya's catalogue."""

    model_config = _example({"object": "list", "data": [_MODEL]})

    object: Literal["list"]
    data: list[RivyaModel]


class RivyaCredits(BaseModel):
    """The credits that the account can spend."""

    model_config = _example({"current_credits": 123})

    current_credits: float


class RivyaFile(BaseModel):
    """An uploaded file; beyond these members Rivya documents nothing."""

    model_config = _example(
        {"file_id": "file_1", "url": "https://media.example/uploads/file_1", "duration_token": None}
    )

    file_id: str
    url: str
    duration_token: str | None = Field(None, description="for `params.referenceMediaItems[]`, video and audio")


class RivyaObject(BaseModel):
    """Rivya's answer, whose members are not documented."""

    model_config = ConfigDict(extra="allow")


class ChatTurn(BaseModel):
    """Rivya's body; forwarded byte for byte, members that are not listed here included."""

    model_config = _example(_TURN)

    model: str = Field(description="One of category chat of GET /api/v1/models.")
    message: str
    session_id: str | None = Field(None, description="Goes on with a session.")
    attachments: list[dict[str, str]] | None = Field(None, description='`[{"file_id": "…"}]` of POST /api/v1/files')
    enable_web_search: bool | None = None
    reasoning_effort: Literal["default", "minimal", "low", "medium", "high", "xhigh"] | None = None
    client_request_id: str | None = Field(None, max_length=128)


class ChatCompletion(BaseModel):
    """A complete chat turn."""

    model_config = _example(_COMPLETION)

    id: str
    object: str
    session_id: str
    model: str
    created_at: str
    message: dict[str, Any]
    usage: dict[str, Any] | None
    credits: dict[str, Any] | None


def _answered(model: type[BaseModel], description: str) -> dict[int | str, dict[str, Any]]:
    return {200: {"model": model, "description": f"{description} The status is Rivya's own and may be another 2xx."}}


MODELS = _answered(RivyaModels, "Rivya's catalogue.")
MODEL = _answered(RivyaModel, "One entry of it.")
CREDITS = _answered(RivyaCredits, "The balance.")
FILE = _answered(RivyaFile, "The file.")
UPLOADED = _answered(RivyaFile, "Rivya took the file.")
SESSIONS = _answered(RivyaObject, "The sessions.")
SESSION = _answered(RivyaObject, "The session.")
COMPLETION = _answered(ChatCompletion, "The turn.")
EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Server-sent events. Rivya does not document their names and data; they are passed on unchanged."
        " A connection that ends without the end of the answer means that Rivya broke off.",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}

TURN_BODY: dict[str, Any] = {
    "required": True,
    "content": {"application/json": {"schema": ChatTurn.model_json_schema()}},
}
UPLOAD_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file", "kind"],
                "properties": {
                    "kind": {
                        "type": "string",
                        "enum": ["image", "video", "audio"],
                        "description": "Sent before the file, a file that is too large is refused sooner.",
                    },
                    "file": {"type": "string", "format": "binary"},
                    "model": {"type": "string"},
                    "client_request_id": {"type": "string", "maxLength": 128},
                },
            }
        }
    },
}
