"""docs/sandbox.md: its commands do what they say."""

import os
from pathlib import Path

from app.sandbox.server import serve_sandbox
from tests.support.commands import program
from tests.support.documents import blocks, read


async def test_every_command_works_as_it_is_shown(tmp_path: Path) -> None:
    script = blocks(read("docs/sandbox.md"), "sh")[1]
    first, *rest = script.splitlines()
    assert first == "SANDBOX=http://127.0.0.1:9000"
    async with serve_sandbox() as rivya:
        environment = {"PATH": os.environ["PATH"], "SANDBOX": rivya.base_url}
        words = ("bash", "-euo", "pipefail", "-c", "\n".join(rest))
        ended = await program(*words, environment=environment, directory=tmp_path)
        assert ended.status == 0, ended.output + ended.errors
        assert '"drop":true' in ended.output
        assert '"connection":"reset"' in ended.output
        assert rivya.sandbox.faults.api == []
        assert not rivya.sandbox.faults.deliveries.drop
        assert rivya.sandbox.settings.scheme.family == "standard"
        assert rivya.sandbox.accounts.balance("default") == 5
        assert rivya.sandbox.keys["rvya_sk_limited"].scopes == ("models:read", "generations:read")
