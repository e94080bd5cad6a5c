"""Serves the sandbox Rivya alone, until a signal."""

import asyncio
import signal
import sys

import typer
import uvloop

from app.sandbox.accounts import DEFAULT_KEY
from app.sandbox.server import serve_sandbox
from app.sandbox.settings import SandboxSettings
from app.sandbox.state import Sandbox


def run_sandbox(host: str, port: int, *, speed: float, keys: list[str] | None) -> int:
    """Serve at `host` and `port` (0: any free port); the exit status is 1 if listening there is not possible."""
    sandbox = Sandbox(keys=keys or [DEFAULT_KEY], settings=SandboxSettings(speed=speed))
    try:
        uvloop.run(_serve(sandbox, host, port))
    except OSError as error:
        reason = error.strerror or type(error).__name__
        sys.stderr.write(f"--host, --port: got {host} and {port}; can't listen there ({reason})\n")
        return 1
    return 0


async def _serve(sandbox: Sandbox, host: str, port: int) -> None:
    stop = asyncio.Event()
    async with serve_sandbox(sandbox, host=host, port=port) as served:
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        typer.echo(f"""sandbox Rivya at {served.base_url}; a receiver on this machine takes it for Rivya with

  RIVYA_BASE_URL={served.base_url} RIVYA_API_KEY={next(iter(sandbox.keys))}

it misbehaves as {served.base_url}/sandbox/faults says, and tells all it knows at {served.base_url}/sandbox/state \
(Ctrl-C ends it)""")
        await stop.wait()
