"""Chat: sessions that remember their turns, each turn paid once per idempotency key."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from app.sandbox.accounts import Charge, CreditAccounts, Idempotency
from app.sandbox.clock import Bounded, Clock, new_id, stamp
from app.sandbox.files import LONGEST_TRACE, Files
from app.sandbox.models import Model
from app.sandbox.responses import RivyaError, invalid, missing
from app.sandbox.settings import SandboxSettings

# The body of a chat turn, read and checked.


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
        """The session as the list shows it."""
        return {
            "id": self.id,
            "object": "chat.session",
            "model": self.model,
            "title": self.title,
            "created_at": stamp(self.created_at),
            "updated_at": stamp(self.updated_at),
        }

    def with_messages(self) -> dict[str, Any]:
        """The session with all that was said."""
        return {**self.as_json(), "messages": self.messages}


class Chat:
    """The sessions of every account, oldest first."""

    def __init__(
        self,
        files: Files,
        accounts: CreditAccounts,
        *,
        models: dict[str, Model],
        settings: SandboxSettings,
        clock: Clock,
        keep: int,
    ) -> None:
        self._files = files
        self._accounts = accounts
        self._models = models
        self._settings = settings
        self._clock = clock
        self._idempotency = Idempotency(keep)
        self.sessions: Bounded[str, Session] = Bounded(keep)

    def of(self, account: str) -> list[Session]:
        """The account's sessions."""
        return [session for session in self.sessions.values() if session.account == account]

    def get(self, account: str, session_id: str) -> Session:
        """One session of the account; raises `not_found`."""
        session = self.sessions.get(session_id)
        if session is None or session.account != account:
            raise missing("Chat session")
        return session

    def turn(self, account: str, body: dict[str, Any], *, key: str | None) -> dict[str, Any]:
        """The completion, or the first one again for a used key; raises the documented refusals."""
        known = self._idempotency.find(account, key, body) if key else None
        if known is not None:
            return known
        order = read_chat_order(body, self._models)
        for file_id in order.file_ids:
            self._files.get(account, file_id)
        session = self._session(account, order)
        completion = self._answer(session, order, key)
        if key:
            self._idempotency.remember(account, key, body, answer=completion)
        return completion

    def _session(self, account: str, order: ChatOrder) -> Session:
        if order.session_id is None:
            now = self._clock.now()
            return Session(new_id("chat"), account, order.model.id, order.message[:40], now, now)
        session = self.get(account, order.session_id)
        if session.model != order.model.id:
            raise RivyaError("chat_session_conflict", "This session belongs to another model.")
        return session

    def _answer(self, session: Session, order: ChatOrder, key: str | None) -> dict[str, Any]:
        completion_id = new_id("chatcmpl")
        # Reserved is the most it can cost; the answer turns out to be one credit cheaper.
        charge = Charge(session.account, key, completion_id, order.model.base_credits + 1)
        self._accounts.reserve(charge, refusal_status=self._settings.insufficient_credits_status)
        now = self._clock.now()
        turns = sum(message["role"] == "user" for message in session.messages) + 1
        attached = f" with {len(order.file_ids)} attached" if order.file_ids else ""
        content = f"Turn {turns}{attached}: you said “{order.message}”, and I have nothing to add."
        answer = {"id": new_id("msg"), "role": "assistant", "content": content}
        session.messages += [{"id": new_id("msg"), "role": "user", "content": order.message}, answer]
        session.updated_at = now
        self.sessions[session.id] = session
        self._accounts.settle(charge, charge.reserved - 1)
        read, written = len(order.message.split()), len(content.split())
        return {
            "id": completion_id,
            "object": "chat.completion",
            "session_id": session.id,
            "model": session.model,
            "created_at": stamp(now),
            "message": answer,
            "usage": {"input_tokens": read, "output_tokens": written, "total_tokens": read + written},
            "credits": {"reserved": charge.reserved, "final": charge.final},
        }
