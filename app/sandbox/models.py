"""The sandbox's catalogue: a few models of every category, each with a price and a duration."""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, get_args

from app.sandbox.accounts import Charge
from app.sandbox.clock import stamp
from app.sandbox.faults import DeliveryFaults
from app.sandbox.responses import invalid

Category = Literal["image", "video", "audio", "chat"]
_MEDIA = {"image": "png", "video": "mp4", "audio": "mp3", "chat": "txt"}


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

    @property
    def extension(self) -> str:
        """How the name of a result file ends."""
        return _MEDIA[self.category]

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


# What a request wishes for in `params.sandbox`: how long it takes, whether it fails, what befalls its callback.


@dataclass(frozen=True)
class SandboxParams:
    """A request's own course; None: the model's duration, the sandbox's faults."""

    seconds: float | None = None
    fails: bool = False
    callback: DeliveryFaults | None = None


def read_params(params: dict[str, Any]) -> SandboxParams:
    """Read `{"seconds": 1.5, "fail": true, "callback": "duplicate,reorder"}`; raises `validation_failed`."""
    asked = params.get("sandbox", {})
    if not isinstance(asked, dict) or not asked.keys() <= {"seconds", "fail", "callback"}:
        raise invalid("params.sandbox takes seconds, fail and callback.")
    seconds = asked.get("seconds")
    if seconds is not None and (type(seconds) not in (int, float) or seconds < 0):
        raise invalid("params.sandbox.seconds must be a number, not negative.")
    fails = asked.get("fail", False)
    if not isinstance(fails, bool):
        raise invalid("params.sandbox.fail must be true or false.")
    callback = asked.get("callback")
    if callback is not None and not isinstance(callback, str):
        raise invalid("params.sandbox.callback must be a string.")
    return SandboxParams(seconds, fails, None if callback is None else read_callback(callback))


def read_callback(text: str) -> DeliveryFaults:
    """Read `drop`, `duplicate:3`, `delay:1.5`, `skew:-600`, `early`, … or several with commas between."""
    faults = DeliveryFaults()
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, _, amount = part.partition(":")
        if name not in _KINDS:
            raise invalid(f"params.sandbox.callback does not know {name!r}.")
        try:
            setattr(faults, name, _KINDS[name](amount))
        except ValueError:
            raise invalid(f"params.sandbox.callback can't read the amount in {part!r}.") from None
    return faults


def _flag(amount: str) -> bool:
    if amount:
        raise ValueError(amount)
    return True


def _not_negative(amount: float) -> float:
    if not 0 <= amount < math.inf:
        raise ValueError(amount)
    return amount


_KINDS: dict[str, Callable[[str], object]] = {
    "drop": _flag,
    "delay": lambda amount: _not_negative(float(amount)),
    "duplicate": lambda amount: int(_not_negative(int(amount or 1))),
    "reorder": _flag,
    "forge": _flag,
    "contradict": _flag,
    "early": _flag,
    "skew": float,
    "corrupt": _flag,
}


# One generation as Rivya keeps it: four statuses, of which two are final.


Status = Literal["queued", "processing", "succeeded", "failed"]
STATUSES: tuple[str, ...] = get_args(Status)
_RANK = {"queued": 0, "processing": 1, "succeeded": 2, "failed": 2}


@dataclass
class Generation:
    """The truth about one generation, and who asked for it how often."""

    id: str
    account: str
    model: Model
    charge: Charge
    created_at: datetime
    updated_at: datetime
    client_request_id: str | None = None
    options: SandboxParams = field(default_factory=SandboxParams)
    status: Status = "queued"
    moves: list[dict[str, str]] = field(default_factory=list)
    polls: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=1000))

    @property
    def is_terminal(self) -> bool:
        """Nothing follows."""
        return _RANK[self.status] == 2

    def move(self, status: Status, at: datetime) -> None:
        """Go forward; raises ValueError on any other direction."""
        if _RANK[status] <= _RANK[self.status]:
            raise ValueError(f"Generation {self.id} is {self.status} and can't become {status}.")
        self.status = status
        self.updated_at = at
        self.moves.append({"status": status, "at": stamp(at)})

    def as_json(self, status: Status | None = None) -> dict[str, Any]:
        """The documented object; another status than the true one makes the object of a false report."""
        shown = self.status if status is None else status
        cost = {"succeeded": self.charge.reserved, "failed": 0}.get(shown)
        url = f"https://media.example/{self.id}.{self.model.extension}"
        return {
            "id": self.id,
            "status": shown,
            "model": self.model.id,
            "reserved_credits": self.charge.reserved,
            "final_credits": cost,
            "created_at": stamp(self.created_at),
            "updated_at": stamp(self.updated_at),
            "result": {"primary_url": url, "urls": [url]} if shown == "succeeded" else None,
            "error": {"code": "generation_failed", "message": "The model gave up."} if shown == "failed" else None,
        }


# The body of `POST /api/v1/generations`, read and checked.


@dataclass(frozen=True)
class Order:
    """What a caller asks for."""

    model: Model
    client_request_id: str | None
    options: SandboxParams


def read_order(body: dict[str, Any], models: dict[str, Model]) -> Order:
    """Check a create's body; raises `validation_failed`."""
    name = body.get("model")
    if not isinstance(name, str) or not name:
        raise invalid("model is required.")
    model = models.get(name)
    if model is None or not model.is_generative:
        raise invalid(f"model {name!r} can't be used for generations.")
    params = {} if body.get("params") is None else body["params"]
    if not isinstance(params, dict):
        raise invalid("params must be an object.")
    if not isinstance(body.get("prompt"), str | None):
        raise invalid("prompt must be a string.")
    trace = body.get("client_request_id")
    if not isinstance(trace, str | None):
        raise invalid("client_request_id must be a string.")
    return Order(model, trace, read_params(params))
