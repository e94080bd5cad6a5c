"""Chat: sessions that remember their turns, each turn paid once per idempotency key."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, StrictBool

from app.sandbox.accounts import Charge, CreditAccounts, Idempotency, Records
from app.sandbox.clock import new_id, stamp
from app.sandbox.files import TRACE_LENGTH, Files
from app.sandbox.models import Model
from app.sandbox.responses import RivyaError, validate
from app.sandbox.settings import Context


class Attachment(BaseModel):
    """A file that belongs to a message."""

    file_id: str


class ChatRequest(BaseModel):
    """The body of `POST /api/v1/chat/completions`."""

    model: Annotated[str, Field(min_length=1)]
    message: Annotated[str, Field(min_length=1)]
    session_id: str | None = None
    attachments: list[Attachment] | None = None
    enable_web_search: StrictBool | None = None
    reasoning_effort: Literal["default", "minimal", "low", "medium", "high", "xhigh"] = "default"
    client_request_id: Annotated[str, Field(max_length=TRACE_LENGTH)] | None = None


@dataclass
class Session:
    """A conversation with one model."""

    id: str
    account: str
    model: str
    title: str
    created_at: datetime
    updated_at: datetime
    messages: list[dict[str, Any]] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The session as lists show it."""
        return {
            "id": self.id,
            "object": "chat.session",
            "model": self.model,
            "title": self.title,
            "created_at": stamp(self.created_at),
            "updated_at": stamp(self.updated_at),
        }

    def with_messages(self) -> dict[str, Any]:
        """The session with its messages."""
        return {**self.as_json(), "messages": self.messages}


class Chat:
    """The sessions of every account, oldest first."""

    def __init__(self, context: Context, files: Files, accounts: CreditAccounts, *, models: dict[str, Model]) -> None:
        self._clock = context.clock
        self._files = files
        self._accounts = accounts
        self._models = models
        self._idempotency = Idempotency(context.keep)
        self.sessions: Records[Session] = Records("Chat session", context.keep)

    def turn(self, account: str, body: dict[str, Any], *, key: str | None) -> dict[str, Any]:
        """The completion, or the first one of a used key. Raises `RivyaError`."""
        known = self._idempotency.find(account, key, body)
        if known is not None:
            return known
        request = validate(ChatRequest, body)
        model = self._model(request)
        for attachment in request.attachments or []:
            self._files.by_id.find(attachment.file_id, account)
        completion = self._complete(self._session(account, request), request, model, key)
        self._idempotency.store(account, key, body, answer=completion)
        return completion

    def _model(self, request: ChatRequest) -> Model:
        model = self._models.get(request.model)
        if model is None or model.category != "chat":
            raise RivyaError("chat_model_not_supported", f"model {request.model!r} can't be used for chat.")
        if request.attachments and not model.takes_attachments:
            raise RivyaError("chat_attachment_not_supported", f"model {model.id!r} takes no attachments.")
        return model

    def _session(self, account: str, request: ChatRequest) -> Session:
        if request.session_id is None:
            now = self._clock.now()
            return Session(new_id("chat"), account, request.model, request.message[:40], now, now)
        session = self.sessions.find(request.session_id, account)
        if session.model != request.model:
            raise RivyaError("chat_session_conflict", "This session belongs to another model.")
        return session

    def _complete(self, session: Session, request: ChatRequest, model: Model, key: str | None) -> dict[str, Any]:
        # What is reserved is the most that a turn can cost; the final price is one credit less.
        charge = Charge(session.account, key, new_id("chatcmpl"), model.base_credits + 1)
        self._accounts.reserve(charge)
        self._accounts.settle(charge, charge.reserved - 1)
        turns = sum(message["role"] == "user" for message in session.messages) + 1
        attached = f" with {len(request.attachments)} attached" if request.attachments else ""
        content = f"Turn {turns}{attached}: you said “{request.message}”, and I have nothing to add."
        answer = {"id": new_id("msg"), "role": "assistant", "content": content}
        session.messages += [{"id": new_id("msg"), "role": "user", "content": request.message}, answer]
        session.updated_at = self._clock.now()
        self.sessions[session.id] = session
        read, written = len(request.message.split()), len(content.split())
        return {
            "id": charge.generation_id,
            "object": "chat.completion",
            "session_id": session.id,
            "model": session.model,
            "created_at": stamp(session.updated_at),
            "message": answer,
            "usage": {"input_tokens": read, "output_tokens": written, "total_tokens": read + written},
            "credits": {"reserved": charge.reserved, "final": charge.final},
        }
