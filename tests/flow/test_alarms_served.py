"""The watch as a deployment runs it: a loop of its own, beside the requests."""

import asyncio
import json
from pathlib import Path

from app.sandbox.server import serve_sandbox
from tests.support.alert_rules import rules
from tests.support.commands import wait_for
from tests.support.receivers import receiver


async def test_a_served_process_notices_silence_by_itself(empty_database_url: str, tmp_path: Path) -> None:
    async with (
        serve_sandbox() as rivya,
        receiver(
            rivya, empty_database_url, tmp_path, RECEIVER_ALARM_SILENCE="0.5", RECEIVER_POLL_GRACE="600"
        ) as service,
    ):
        await service.create(seconds=0.1, callback="drop")
        written = await asyncio.to_thread(wait_for, service.process, '"alarm.crossed"')
        [line] = [json.loads(line) for line in written.splitlines() if '"alarm.crossed"' in line]
        assert (line["alarm"], line["threshold"], line["level"]) == ("silence", 0.5, "warning")
        assert rules()["RivyaSilent"].holds((await service.client.get("/metrics")).text)
        check = await service.check("silence")
        assert not check["ok"]
        assert not check["required"]
