"""The sandbox's catalogue: a few models of every category, each with a price and a duration."""

from dataclasses import dataclass
from typing import Any, Literal

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
