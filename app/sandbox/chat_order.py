"""The body of a chat turn, read and checked."""

from dataclasses import dataclass
from typing import Any

from app.sandbox.errors import RivyaError, invalid
from app.sandbox.files import LONGEST_TRACE
from app.sandbox.models import Model

EFFORTS = ("default", "minimal", "low", "medium", "high", "xhigh")


@dataclass(frozen=True)
class ChatOrder:
    """What a caller says, in which session, with which files."""

    model: Model
    message: str
    session_id: str | None
    file_ids: tuple[str, ...]


def read_chat_order(body: dict[str, Any], models: dict[str, Model]) -> ChatOrder:
    """Check a turn's body; raises `validation_failed`, and what the model can't do in its own codes."""
    model = _model(body, models)
    if not isinstance(body.get("message"), str) or not body["message"]:
        raise invalid("message is required.")
    for member, kind in (("session_id", str), ("enable_web_search", bool), ("client_request_id", str)):
        if not isinstance(body.get(member), kind | None):
            raise invalid(f"{member} must be a {'string' if kind is str else 'boolean'}.")
    if len(body.get("client_request_id") or "") > LONGEST_TRACE:
        raise invalid(f"client_request_id must have at most {LONGEST_TRACE} characters.")
    if body.get("reasoning_effort", "default") not in EFFORTS:
        raise invalid(f"reasoning_effort must be one of {', '.join(EFFORTS)}.")
    return ChatOrder(model, body["message"], body.get("session_id"), _attachments(body, model))


def _model(body: dict[str, Any], models: dict[str, Model]) -> Model:
    name = body.get("model")
    if not isinstance(name, str) or not name:
        raise invalid("model is required.")
    model = models.get(name)
    if model is None or model.category != "chat":
        raise RivyaError("chat_model_not_supported", f"model {name!r} can't be used for chat.")
    return model


def _attachments(body: dict[str, Any], model: Model) -> tuple[str, ...]:
    attached = body.get("attachments") or []
    if not isinstance(attached, list) or not all(
        isinstance(item, dict) and isinstance(item.get("file_id"), str) for item in attached
    ):
        raise invalid('attachments must be a list of {"file_id": "…"}.')
    if attached and not model.takes_attachments:
        raise RivyaError("chat_attachment_not_supported", f"model {model.id!r} takes no attachments.")
    return tuple(item["file_id"] for item in attached)
