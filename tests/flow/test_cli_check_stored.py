"""`rivya-receiver check` of a deployment that has been running: what is stored, and what Rivya says of it now."""

import asyncio
from pathlib import Path

from cryptography.fernet import Fernet

from app.sandbox.server import serve_sandbox
from tests.support.check_output import NAMES, checked, failing
from tests.support.commands import wait_for
from tests.support.receivers import receiver


async def test_polling_that_a_refused_key_stopped_is_told(sqlite_url: str, tmp_path: Path) -> None:
    async with serve_sandbox() as rivya, receiver(rivya, sqlite_url, tmp_path) as service:
        await service.create(seconds=60, callback="drop")
        rivya.sandbox.keys["rvya_sk_sandbox"].revoked = True
        await asyncio.to_thread(wait_for, service.process, "poll.stopped")
        checks = await checked(rivya, sqlite_url, port=service.process.port)
    mark, detail = checks["polling"]
    assert mark == "FAIL"
    assert detail.startswith("stopped: Rivya refuses RIVYA_API_KEY (api_key_revoked)")


async def test_what_no_longer_fits_what_is_stored_is_told(sqlite_url: str, tmp_path: Path) -> None:
    async with serve_sandbox() as rivya:
        async with receiver(rivya, sqlite_url, tmp_path) as service:
            port = service.process.port
        well = await checked(rivya, sqlite_url, port=port)
        assert (list(well), failing(well)) == (NAMES, set())

        other_key = await checked(rivya, sqlite_url, port=port, RECEIVER_ENCRYPTION_KEYS=Fernet.generate_key().decode())
        assert failing(other_key) == {"signing secret"}
        assert "RECEIVER_ENCRYPTION_KEYS: a stored secret was sealed with key" in other_key["signing secret"][1]

        moved = await checked(rivya, sqlite_url, port=port, RECEIVER_PUBLIC_URL="http://127.0.0.1:1")
        assert failing(moved) == {"endpoint registered"}
        assert "leads elsewhere than RECEIVER_PUBLIC_URL" in moved["endpoint registered"][1]

        [endpoint] = rivya.sandbox.endpoints.by_id.values()
        endpoint.status = "disabled"
        disabled = await checked(rivya, sqlite_url, port=port)
        assert failing(disabled) == {"endpoint registered"}
        assert "is disabled at Rivya" in disabled["endpoint registered"][1]

        rivya.sandbox.endpoints.by_id.clear()
        gone = await checked(rivya, sqlite_url, port=port)
        assert failing(gone) == {"endpoint registered"}
        assert "404 not_found" in gone["endpoint registered"][1]
