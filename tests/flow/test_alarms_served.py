"""The alarms as a deployment runs them: a loop of its own, beside the requests."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

from app.sandbox.server import serve_sandbox
from tests.support.alert_rules import rules
from tests.support.commands import wait_for
from tests.support.ledger_harness import open_ledger
from tests.support.receivers import receiver
from tests.support.reports import submit


async def test_a_served_process_notices_silence_by_itself(database_url: str, tmp_path: Path) -> None:
    async with open_ledger(database_url) as room:  # before it starts: its first look is at once, the next much later
        await room.ledger.record([submit("open", at=datetime.now(UTC) - timedelta(minutes=1))])
    async with (
        serve_sandbox() as rivya,
        receiver(rivya, database_url, tmp_path, RECEIVER_ALARM_SILENCE="0.5", RECEIVER_POLL_GRACE="600") as service,
    ):
        written = await asyncio.to_thread(wait_for, service.process, '"alarm.crossed"')
        [line] = [json.loads(line) for line in written.splitlines() if '"alarm.crossed"' in line]
        assert (line["alarm"], line["threshold"], line["level"]) == ("silence", 0.5, "warning")
        assert rules()["RivyaSilent"].holds((await service.client.get("/metrics")).text)
        check = await service.check("silence")
        assert not check["ok"]
        assert not check["required"]
