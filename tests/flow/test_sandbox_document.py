"""docs/sandbox.md: its commands do what they say."""

import asyncio
import os
from pathlib import Path

from app.sandbox.server import serve_sandbox
from tests.support.documents import blocks, read


async def test_every_command_works_as_it_is_shown(tmp_path: Path) -> None:
    script = blocks(read("docs/sandbox.md"), "sh")[1]
    first, *rest = script.splitlines()
    assert first == "SANDBOX=http://127.0.0.1:9000"
    async with serve_sandbox() as rivya:
        process = await asyncio.create_subprocess_exec(
            *("bash", "-euo", "pipefail", "-c", "\n".join(rest)),
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "SANDBOX": rivya.base_url},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, errors = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode == 0, output.decode() + errors.decode()
        assert b'"drop":true' in output
        assert b'"connection":"reset"' in output
        assert rivya.sandbox.faults.api == []
        assert not rivya.sandbox.faults.deliveries.drop
        assert rivya.sandbox.settings.scheme.family == "standard"
        assert rivya.sandbox.accounts.balance("default") == 5
        assert rivya.sandbox.keys["rvya_sk_limited"].scopes == ("models:read", "generations:read")
