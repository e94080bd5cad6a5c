"""What the OpenAPI document says of usage."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

_LINE: dict[str, Any] = {
    "day": "2026-05-10",
    "submitted_by": "shop",
    "model": "z-image",
    "generations": 12,
    "open": 1,
    "reserved_credits": 12,
    "final_credits": 10,
}


class UsageLineOut(BaseModel):
    """The generations of one model that one token submitted on one day."""

    model_config = ConfigDict(json_schema_extra={"example": _LINE})

    day: str = Field(description="in UTC, of `tracking.first_seen_at`")
    submitted_by: str | None = Field(description="name of the token; null: not submitted through the receiver")
    model: str | None
    generations: int
    open: int = Field(description="how many have no outcome yet")
    reserved_credits: float
    final_credits: float


class UsageListOut(BaseModel):
    """Sums, by day, token name and model."""

    object: Literal["list"]
    from_time: str = Field(alias="from")
    to: str
    data: list[UsageLineOut]
