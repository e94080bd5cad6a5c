"""An operator's commands against a running receiver by its URL and a token, and a secret whose key was lost."""

import asyncio
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet

from app.sandbox.server import serve_sandbox
from tests.support.commands import Ended, command
from tests.support.receivers import TOKEN, Receiver, environment, receiver

NOBODY = "http://127.0.0.1:9"


async def serving(service: Receiver) -> dict[str, Any]:
    async with asyncio.timeout(20):
        while (endpoint := (await service.client.get("/api/v1/endpoint")).json()).get("state") != "serving":
            await asyncio.to_thread(service.process.exit_status, within=0.05)
    shown: dict[str, Any] = endpoint
    return shown


async def test_an_operator_needs_only_the_url_and_a_token(tmp_path: Path, sqlite_url: str) -> None:
    async with (
        serve_sandbox() as rivya,
        receiver(rivya, sqlite_url, tmp_path, RECEIVER_POLL_GRACE="60") as service,  # its callback settles it
    ):
        endpoint = await serving(service)
        body = {"name": "rivya-receiver", "url": f"{service.process.url}/rivya/webhook/lost"}
        orphan = rivya.sandbox.endpoints.create("default", {**body, "event_types": ["generation.failed"]}).id
        generation_id = await service.create(seconds=0)
        assert (await service.settled(generation_id))["status"] == "succeeded"

        async def run(words: str) -> Ended:
            return await command(words, {"RECEIVER_URL": service.process.url, "RECEIVER_TOKEN": TOKEN}, tmp_path)

        expected = {
            "endpoint": endpoint["rivya_id"],
            "endpoint rotate": "a new secret is stored",
            "endpoint repin": "no longer pinned",
            "endpoint orphans": orphan,
            f"endpoint orphans remove {orphan} --yes": f"{orphan}: removed at Rivya",
            f"generations poll {generation_id}": f"{generation_id}: succeeded (stale)",
            f"generations transitions {generation_id}": "succeeded",
            f"deliveries list --generation {generation_id}": "generation.succeeded",
            "deliveries replay --since 2026-01-01T00:00:00Z": "nothing was written",
            "deliveries replay --since 2026-01-01T00:00:00Z --apply": "replayed",
            f"generations forget {generation_id}": f"{generation_id}: forgotten",
        }
        for words, text in expected.items():
            ended = await run(words)
            assert ended.status == 0, (words, ended)
            assert text in ended.output, words
        gone = [f"generations forget {generation_id}", f"endpoint orphans remove {endpoint['rivya_id']} --yes"]
        for words in gone:
            ended = await run(words)
            assert (ended.status, "not_found" in ended.errors) == (1, True), words
        secure = service.process.url.replace("http:", "https:")
        ended = await command("models", {"RECEIVER_URL": secure, "RECEIVER_TOKEN": TOKEN}, tmp_path)
        assert "speaks no TLS: is RECEIVER_URL http:// instead?" in ended.errors


async def test_a_lost_encryption_key_is_no_dead_end(tmp_path: Path, sqlite_url: str) -> None:
    async with serve_sandbox() as rivya:
        async with receiver(rivya, sqlite_url, tmp_path) as service:
            await serving(service)
            port = service.process.port
        settings = environment(rivya.base_url, sqlite_url, port)
        changed = {**settings, "RECEIVER_ENCRYPTION_KEYS": Fernet.generate_key().decode()}
        refused = await command("serve", changed, tmp_path)
        assert (refused.status, "rivya-receiver endpoint reset-secret" in refused.errors) == (2, True)
        needless = await command("endpoint reset-secret --yes", settings, tmp_path)
        assert (needless.status, "none is lost" in needless.output) == (1, True)
        reset = await command("endpoint reset-secret --yes", changed, tmp_path)
        assert reset.status == 0, reset
        assert "add it at the end of RECEIVER_ENCRYPTION_KEYS instead" in reset.output
        assert reset.output.endswith("a new secret is stored\n")
        key = changed["RECEIVER_ENCRYPTION_KEYS"]
        async with receiver(
            rivya, sqlite_url, tmp_path, port=port, RECEIVER_ENCRYPTION_KEYS=key, RECEIVER_POLL_GRACE="60"
        ) as service:
            await serving(service)
            history = (await service.client.get("/api/v1/endpoint/history")).json()["data"]
            assert {"secret_reset", "rotated"} <= {entry["event"] for entry in history}
            assert (await service.settled(await service.create(seconds=0)))["tracking"]["settled_by"] == "webhook"
