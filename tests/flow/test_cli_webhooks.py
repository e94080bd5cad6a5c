"""`rivya-receiver webhooks …`: made, tested, rotated, paused, enabled, sent again and deleted."""

import json
from pathlib import Path

from app.sandbox.server import serve_sandbox
from tests.support.commands import Ended, command
from tests.support.receivers import TOKEN, receiver
from tests.support.scripted_provider import answering, scripted


async def test_a_webhook_is_managed_on_the_command_line(sqlite_url: str, tmp_path: Path) -> None:
    async with (
        scripted(answering(b""), answering(b"", status="500 Oops")) as program,
        serve_sandbox() as rivya,
        receiver(rivya, sqlite_url, tmp_path, RECEIVER_NOTIFY_ALLOW="127.0.0.1") as service,
    ):

        async def run(words: str) -> Ended:
            settings = {"RECEIVER_URL": service.process.url, "RECEIVER_TOKEN": TOKEN}
            return await command(f"webhooks {words}", settings, tmp_path)

        created = await run(f"create {program.url}/hook --name shop --event generation.failed --model z-image --json")
        assert created.status == 0, created.errors
        webhook = json.loads(created.output)
        assert webhook["signing_secret"].startswith("whsec_")
        assert (webhook["name"], webhook["event_types"]) == ("shop", ["generation.failed"])
        [line] = (await run("list")).output.splitlines()[1:]
        assert line.split()[:3] == [webhook["id"], "active", "0"]
        rejected = await run("create http://10.0.0.1/")
        assert (rejected.status, "webhook_url_rejected" in rejected.errors) == (1, True)
        assert "signing_secret" in (await run(f"create {program.url}/other")).output

        identity = webhook["id"]
        tested = await run(f"test {identity}")
        assert (tested.status, len(program.heard)) == (0, 1), tested.errors
        failed = await run(f"test {identity} --json")
        assert (failed.status, json.loads(failed.output)["response_status"]) == (1, 500)
        assert json.loads((await run(f"pause {identity} --json")).output)["status"] == "paused"
        assert json.loads((await run(f"enable {identity} --json")).output)["status"] == "active"
        rotated = json.loads((await run(f"rotate {identity} --json")).output)
        assert rotated["signing_secret"] not in ("", webhook["signing_secret"])
        resent = await run(f"resend {identity} --since 2026-05-10T00:00:00Z --status delivered")
        assert (resent.status, resent.output) == (0, "1 are sent again\n"), resent.errors
        assert (await run(f"delete {identity}")).output == f"{identity}: deleted\n"
        assert (await run(f"test {identity}")).status == 1
