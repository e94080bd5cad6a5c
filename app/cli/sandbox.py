"""Serves the sandbox Rivya by itself, says where it is, and stops when told to."""

import asyncio
import sys
from collections.abc import Callable
from typing import Any

from app.cli.server import on_stop_signal
from app.sandbox.server import serve_sandbox
from app.sandbox.state import Sandbox

Say = Callable[[str], Any]


async def serve_sandbox_until_stopped(sandbox: Sandbox, host: str, port: int, *, say: Say) -> int:
    """Serve at `host` and `port` (0: any free one); the exit status: 0 stopped when told to, 1 could not listen."""
    stop = asyncio.Event()
    try:
        async with serve_sandbox(sandbox, host=host, port=port) as served:
            with on_stop_signal(lambda _: stop.set()):
                say(_announcement(served.base_url, [key.value for key in sandbox.keys]))
                await stop.wait()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        sys.stderr.write(f"--host, --port: got {host} and {port}; can't listen there ({reason})\n")
        return 1
    return 0


def _announcement(base_url: str, keys: list[str]) -> str:
    return f"""sandbox Rivya at {base_url}; a receiver on this machine takes it for Rivya with

  RIVYA_BASE_URL={base_url} RIVYA_API_KEY={keys[0]}

it misbehaves as {base_url}/sandbox/faults says, and tells all it knows at {base_url}/sandbox/state (Ctrl-C ends it)"""
