"""Whichever way deliveries are signed and wrapped, a setting makes the service verify and read them."""

from dataclasses import replace
from pathlib import Path

import pytest

from app.sandbox.server import serve_sandbox
from app.sandbox.settings import Envelope, SandboxSettings
from app.sandbox.signing import Scheme
from app.sandbox.state import Sandbox
from tests.support.receivers import receiver
from tests.support.sandbox_harness import standard_webhooks

SUFFIX_ISO = Scheme(
    family="separate",
    signature_header="X-Signature",
    timestamp_header="X-Sent-At",
    encoding="base64",
    prefix="v1=",
    key_form="suffix",
    timestamp_format="iso",
)
LIKE_GITHUB = Scheme(family="body", signature_header="X-Hub-Signature-256", prefix="sha256=", key_form="hex")


@pytest.mark.parametrize(
    ("signed", "envelope", "setting"),
    [
        (standard_webhooks("svix-"), "data.object", "standard-webhooks;prefix=svix-"),
        (SUFFIX_ISO, "generation", "timestamp-header;signature=X-Signature;timestamp=X-Sent-At;key=suffix"),
        (LIKE_GITHUB, "data.generation", "body;signature=X-Hub-Signature-256;key=hex"),
        (replace(SUFFIX_ISO, timestamp_header="X-Request-Timestamp"), "data", "auto"),
    ],
    ids=["standard webhooks", "separate timestamp", "body only", "found out by itself"],
)
async def test_an_outcome_arrives_by_webhook_under_any_scheme(
    empty_postgres_url: str, tmp_path: Path, signed: Scheme, envelope: Envelope, setting: str
) -> None:
    sandbox = Sandbox(settings=SandboxSettings(scheme=signed, envelope=envelope))
    async with (
        serve_sandbox(sandbox) as rivya,
        receiver(
            rivya, empty_postgres_url, tmp_path, RIVYA_SIGNATURE_SCHEME=setting, RECEIVER_POLL_GRACE="60"
        ) as service,
    ):
        ended = await service.settled(await service.create(seconds=0.1))
        assert ended["tracking"]["settled_by"] == "webhook"
        assert await service.metric("receiver_refusals_total", reason="signature_mismatch") == 0
