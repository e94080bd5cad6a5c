"""GET /api/v1/rejections: the newest refused deliveries and why, for admin; no bodies are kept."""

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field

from app.core.auth import Access, Caller, Role
from app.intake.refusals import Refusals


class RejectionView(BaseModel):
    """One delivery that was not accepted."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "0196b9a4-3f00-7d0e-8a51-2f3b6c9d1e70",
                    "rejected_at": "2026-05-11T00:00:00Z",
                    "reason": "signature_mismatch",
                    "endpoint_id": None,
                    "size": 512,
                    "header_names": ["content-type", "host", "rivya-signature"],
                    "remote_address": "203.0.113.9",
                    "digest": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                }
            ]
        }
    )

    id: str
    rejected_at: datetime
    reason: str = Field(description="the code that its sender was told")
    endpoint_id: str | None = Field(description="set when it came to the secret path of an endpoint of ours")
    size: int = Field(description="bytes")
    header_names: list[str]
    remote_address: str | None
    digest: str = Field(description="SHA-256 of the body, hex")


class RejectionsView(BaseModel):
    """A bounded sample, newest first: the newest 1,000 at most are kept, of each second the newest 20."""

    object: Literal["list"] = "list"
    data: list[RejectionView]


def router(refusals: Refusals, access: Access) -> APIRouter:
    """The route."""
    routes = APIRouter(prefix="/api/v1", tags=["deliveries"])

    @routes.get("/rejections", summary="Refused deliveries")
    async def list_rejections(
        _: Annotated[Caller, Depends(access.require(Role.ADMIN))],
        limit: Annotated[int, Query(ge=1, le=1000, description="how many at most")] = 100,
    ) -> RejectionsView:
        """Why deliveries were refused of late, with what may tell where they came from."""
        found = await refusals.newest(limit)
        return RejectionsView(data=[RejectionView(**row) for row in found])

    return routes
