"""Chat: sessions that remember their turns, each paid once per idempotency key and perhaps streamed as events."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, Field, StrictBool
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.sandbox.accounts import Charge, CreditAccounts, Idempotency, Records
from app.sandbox.clock import new_id, stamp
from app.sandbox.faults import StreamFault
from app.sandbox.files import TRACE_LENGTH, Files
from app.sandbox.models import Model
from app.sandbox.responses import NoAnswer, RivyaError, disconnected, validate
from app.sandbox.settings import Context, Dialect


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


HEARTBEAT = b": heartbeat\n\n"
Fate = Literal["open", "completed", "abandoned", "broken"]


@dataclass
class StreamRecord:
    """One stream: how many events were sent and how it ended."""

    id: str
    fate: Fate = "open"
    events: int = 0
    ended_at: str | None = None
    ended_monotonic: float | None = None


class Streams:
    """The log of all streams, oldest first."""

    def __init__(self, context: Context) -> None:
        self.scheduler = context.scheduler
        self._clock = context.clock
        self.log: deque[StreamRecord] = deque(maxlen=context.keep)

    def begin(self, completion_id: str) -> StreamRecord:
        """A new record of an open stream."""
        record = StreamRecord(completion_id)
        self.log.append(record)
        return record

    def end(self, record: StreamRecord, fate: Fate) -> None:
        """Record how the stream ended, unless that is recorded already."""
        if record.fate == "open":
            record.fate = fate
            record.ended_at, record.ended_monotonic = stamp(self._clock.now()), self._clock.monotonic()


class EventStream(Response):
    """Sends events one by one, `pause` seconds apart."""

    media_type = "text/event-stream"

    def __init__(
        self, log: Streams, record: StreamRecord, events: Sequence[bytes], *, pause: float, fault: StreamFault | None
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-cache"})
        del self.headers["content-length"]
        self._log = log
        self._record = record
        self._events = events
        self._pause = pause
        self._fault = fault or StreamFault()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the last event, the break, or until the caller leaves."""
        sending = asyncio.create_task(self._send(send))
        leaving = asyncio.create_task(disconnected(receive))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not sending.done():
                self._log.end(self._record, "abandoned")
            elif await sending == "broken":
                self._log.end(self._record, "broken")
                leaving.cancel()
                await NoAnswer(self._fault.connection or "hang_up")(scope, receive, send)
        finally:
            sending.cancel()
            leaving.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)

    async def _send(self, send: Send) -> Fate:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for event in self._paced():
            if self._record.events == self._fault.after and self._fault.connection is not None:
                return "broken"
            await send({"type": "http.response.body", "body": event, "more_body": True})
            self._record.events += 1
        self._log.end(self._record, "completed")
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        return "completed"

    async def _paced(self) -> AsyncIterator[bytes]:
        for number, event in enumerate(self._events):
            if number and self._pause:
                await self._log.scheduler.sleep(self._pause)
            if number == self._fault.after:
                for _ in range(self._fault.heartbeats):
                    yield HEARTBEAT
                if self._fault.pause:
                    await self._log.scheduler.sleep(self._fault.pause)
            yield event


def encode_event(completion: dict[str, Any], dialect: Dialect) -> list[bytes]:
    """The completion as server-sent events in one of several dialects: Rivya's own is not documented."""
    first, *rest = completion["message"]["content"].split(" ")
    pieces = [first, *(f" {word}" for word in rest)]
    match dialect:
        case "named":
            head = {name: completion[name] for name in ("id", "session_id", "model", "created_at")}
            deltas = [_event("message.delta", {"content": piece}) for piece in pieces]
            return [_event("message.created", head), *deltas, _event("message.completed", completion)]
        case "chunks":
            head = {"id": completion["id"], "object": "chat.completion.chunk", "session_id": completion["session_id"]}
            deltas = [_data({**head, "choices": [{"index": 0, "delta": {"content": piece}}]}) for piece in pieces]
            last = _data({**head, "choices": [], "usage": completion["usage"], "credits": completion["credits"]})
            return [*deltas, last, b"data: [DONE]\n\n"]
        case "crlf":
            deltas = [
                b'id: %d\r\ndata: {"delta":\r\ndata: %b\r\ndata: }\r\n\r\n' % (number, orjson.dumps(piece))
                for number, piece in enumerate(pieces, start=1)
            ]
            return [b"retry: 3000\r\n\r\n", *deltas, b"event: done\r\ndata: %b\r\n\r\n" % orjson.dumps(completion)]


def _event(name: str, value: dict[str, Any]) -> bytes:
    return b"event: " + name.encode() + b"\n" + _data(value)


def _data(value: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(value) + b"\n\n"
