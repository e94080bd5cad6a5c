"""The catalogue of models, what a create asks for, and a generation."""

from collections import deque
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, StrictBool, StrictFloat, TypeAdapter

from app.sandbox.accounts import Charge
from app.sandbox.clock import stamp
from app.sandbox.faults import DeliveryFaults

Category = Literal["image", "video", "audio", "chat"]
_EXTENSION = {"image": "png", "video": "mp4", "audio": "mp3", "chat": "txt"}


@dataclass(frozen=True)
class Model:
    """One entry of the catalogue; `seconds` is how long a generation takes at speed 1."""

    id: str
    display_name: str
    category: Category
    base_credits: int
    seconds: float
    api_status: str = "available"
    takes_attachments: bool = False

    @property
    def is_generative(self) -> bool:
        """Whether `POST /api/v1/generations` takes it."""
        return self.category != "chat" and self.api_status == "available"

    def as_json(self) -> dict[str, Any]:
        """The documented catalogue entry."""
        is_chat = self.category == "chat"
        return {
            "id": self.id,
            "display_name": self.display_name,
            "category": self.category,
            "runtime": "chat" if is_chat else "async_task",
            "base_credits": self.base_credits,
            "billing_type": "FIXED",
            "supported_modes": [] if is_chat else [f"text-to-{self.category}"],
            "max_prompt_length": 1000,
            "reference_media": None,
            "params": [],
            "api_status": self.api_status,
            "api_input_status": "available_text",
            "supported_api_inputs": ["text"],
            "requires_files_api": False,
            "requires_upload_for_modes": [],
            "url_input_supported": False,
            "file_kinds": ["image"] if self.takes_attachments else [],
            "chat_capabilities": {"attachments": self.takes_attachments, "web_search": is_chat} if is_chat else None,
            "notices": [],
        }


def catalogue() -> dict[str, Model]:
    """The models of a fresh sandbox, by id."""
    models = (
        Model("z-image", "Z-Image", "image", base_credits=1, seconds=1.5),
        Model("sandbox-image-pro", "Sandbox Image Pro", "image", base_credits=4, seconds=4),
        Model("sandbox-video", "Sandbox Video", "video", base_credits=20, seconds=12),
        Model("sandbox-video-long", "Sandbox Video Long", "video", base_credits=60, seconds=45),
        Model("sandbox-audio", "Sandbox Audio", "audio", base_credits=5, seconds=5),
        Model("gpt-5-2-chat", "GPT 5.2 Chat", "chat", base_credits=2, seconds=0, takes_attachments=True),
        Model("sandbox-chat", "Sandbox Chat", "chat", base_credits=1, seconds=0),
        Model(
            "sandbox-video-next", "Sandbox Video Next", "video", base_credits=80, seconds=60, api_status="coming_soon"
        ),
    )
    return {model.id: model for model in models}


def read_callback(text: object) -> DeliveryFaults:
    """The faults in `drop`, `duplicate:3`, `delay:1.5`, `skew:-600`, … or several with commas. Raises ValueError."""
    if not isinstance(text, str):
        raise ValueError("callback must be a string")  # noqa: TRY004 - pydantic handles ValueError only
    members: dict[str, object] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, colon, amount = part.partition(":")
        if name in _FLAGS and not colon:
            members[name] = True
        elif name in _AMOUNTS:
            members[name] = amount or _AMOUNTS[name]
        else:
            raise ValueError(f"{part!r} is not known")
    return TypeAdapter(DeliveryFaults).validate_python(members)


_FLAGS = ("drop", "reorder", "forge", "contradict", "early", "corrupt")
_AMOUNTS = {"delay": None, "duplicate": 1, "skew": None}
"""With the amount that is meant where none is given."""


class SandboxParams(BaseModel):
    """The course of one generation, from `params.sandbox`; None: the model's duration, the sandbox's faults."""

    model_config = ConfigDict(extra="forbid")
    seconds: Annotated[StrictFloat, Field(ge=0, allow_inf_nan=False)] | None = None
    fail: StrictBool = False
    callback: Annotated[DeliveryFaults, PlainValidator(read_callback)] | None = None


class GenerationParams(BaseModel):
    """The member `params` of a create; all but `sandbox` is ignored."""

    sandbox: SandboxParams = SandboxParams()


class GenerationRequest(BaseModel):
    """The body of `POST /api/v1/generations`."""

    model: Annotated[str, Field(min_length=1)]
    prompt: str | None = None
    params: GenerationParams | None = None
    client_request_id: str | None = None

    @property
    def sandbox_params(self) -> SandboxParams:
        """`params.sandbox`, or the default."""
        return SandboxParams() if self.params is None else self.params.sandbox


Status = Literal["queued", "processing", "succeeded", "failed"]
_RANK = {"queued": 0, "processing": 1, "succeeded": 2, "failed": 2}


@dataclass
class Generation:
    """The true state of one generation, with its moves and the polls for it."""

    id: str
    account: str
    model: Model
    charge: Charge
    created_at: datetime
    updated_at: datetime
    client_request_id: str | None = None
    params: SandboxParams = field(default_factory=SandboxParams)
    status: Status = "queued"
    moves: list[dict[str, str]] = field(default_factory=list)
    polls: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=1000))

    @property
    def is_terminal(self) -> bool:
        """Whether the status is final."""
        return _RANK[self.status] == 2

    def can_become(self, status: Status) -> bool:
        """Whether this is a step forward."""
        return _RANK[status] > _RANK[self.status]

    def move(self, status: Status, at: datetime) -> None:
        """Set the status. Raises ValueError unless it is a step forward."""
        if not self.can_become(status):
            raise ValueError(f"Generation {self.id} is {self.status} and can't become {status}.")
        self.status = status
        self.updated_at = at
        self.moves.append({"status": status, "at": stamp(at)})

    def as_json(self, status: Status | None = None) -> dict[str, Any]:
        """The documented object, with another status than the true one for a false report."""
        shown = self.status if status is None else status
        url = f"https://media.example/{self.id}.{_EXTENSION[self.model.category]}"
        return {
            "id": self.id,
            "status": shown,
            "model": self.model.id,
            "reserved_credits": self.charge.reserved,
            "final_credits": {"succeeded": self.charge.reserved, "failed": 0}.get(shown),
            "created_at": stamp(self.created_at),
            "updated_at": stamp(self.updated_at),
            "result": {"primary_url": url, "urls": [url]} if shown == "succeeded" else None,
            "error": {"code": "generation_failed", "message": "The model gave up."} if shown == "failed" else None,
        }
