"""A demonstration: a sandbox Rivya, the real service, six generations, their transitions, and one notification."""

import asyncio
import logging
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import httpx
import orjson
import typer
import uvloop
from cryptography.fernet import Fernet

from app.cli.client.output import fail
from app.cli.server import AddressTaken, listen, make_server, on_stop_signal
from app.core import logs
from app.core.database import Database, DatabaseInUse
from app.core.setting_sources import SettingsInvalid
from app.core.settings import Settings, load
from app.ledger.models import Transition
from app.main import Service
from app.rivya.schemes import parse_scheme
from app.rivya.signature import Verified, Verifier
from app.sandbox.server import serve_sandbox
from app.sandbox.state import Sandbox

_FOLDER = Path(".demo")
_KEY = "rvya_sk_sandbox"
_HOST = "127.0.0.1"
_DEFAULT_PORT = 8000
_READY_SECONDS = 30.0
_GRACE_SECONDS = 4

_CASES: Final[tuple[tuple[str, str, dict[str, Any]], ...]] = (
    ("an image", "z-image", {"seconds": 1}),
    ("another image", "z-image", {"seconds": 1.5}),
    ("a video that takes longer", "sandbox-video", {"seconds": 5}),
    ("an image that fails", "z-image", {"seconds": 1.5, "fail": True}),
    ("an image whose callback is dropped", "z-image", {"seconds": 2, "callback": "drop"}),
    ("an image delivered twice and out of order", "z-image", {"seconds": 1, "callback": "duplicate,reorder"}),
)
"""Prompt, model, and the parameters that tell the sandbox how to treat the generation."""


def run_demo(*, keep: bool) -> None:
    """Run the demonstration until a signal. `keep` continues with the data of the last one."""
    logs.configure("console", least=logging.ERROR)
    _FOLDER.mkdir(exist_ok=True)
    try:
        uvloop.run(_run(keep=keep))
    except DatabaseInUse as error:
        fail(f"another demonstration runs in {_FOLDER.resolve()}: stop it first ({error})")
    except AddressTaken as error:
        fail(str(error))
    except SettingsInvalid as error:
        fail(str(error), status=2)


async def _run(*, keep: bool) -> None:
    typer.echo("RIVYA_API_KEY is not set: this is a demonstration against a sandbox Rivya on this machine.")
    typer.echo("Set RIVYA_API_KEY and RECEIVER_PUBLIC_URL for the real thing.\n")
    async with serve_sandbox(key=_KEY) as rivya:
        given = _settings(rivya.base_url, f"http://{_HOST}", _Secrets.fresh())
        listener = _listen(given.receiver_port if "receiver_port" in given.model_fields_set else None)
        folder = Database(given.database_url)
        try:
            folder.lock()  # before anything is removed: another demonstration may use it
            stored = await asyncio.to_thread(_open_folder, keep=keep)
        finally:
            await folder.dispose()
        url = f"http://{_HOST}:{listener.getsockname()[1]}"
        service = Service(_settings(rivya.base_url, url, stored))
        service.database.lock()
        await service.prepare()
        server = make_server(service)
        with on_stop_signal(lambda number: server.handle_exit(number, None)):  # until the server handles signals itself
            typer.echo(f"sandbox Rivya  {rivya.base_url}")
            typer.echo(f"receiver       {url}  (database {_FOLDER}/receiver.db)\n")
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            showing = asyncio.create_task(_show(service, rivya.sandbox, url, stored.token))
            done, _ = await asyncio.wait({serving, showing}, return_when=asyncio.FIRST_COMPLETED)
            if showing in done and not server.should_exit:
                showing.result()
                typer.echo(_examples(url, stored.token))
            showing.cancel()
            await asyncio.gather(showing, return_exceptions=True)
            await serving
    if not server.started:
        raise typer.Exit(1)


@dataclass(frozen=True, slots=True)
class _Secrets:
    """The secrets of a demonstration, kept with its data: the data can't be decrypted with another key."""

    token: str = field(repr=False)
    encryption_key: str = field(repr=False)
    callback_secret: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)

    @classmethod
    def fresh(cls) -> "_Secrets":
        return cls(secrets.token_urlsafe(24), Fernet.generate_key().decode())


def _open_folder(*, keep: bool) -> _Secrets:
    file = _FOLDER / "secrets.json"
    if keep and file.exists():
        return _Secrets(**orjson.loads(file.read_bytes()))
    for name in ("receiver.db", "receiver.db-wal", "receiver.db-shm", file.name):
        (_FOLDER / name).unlink(missing_ok=True)
    demo_secrets = _Secrets.fresh()
    file.touch(mode=0o600)
    file.write_bytes(orjson.dumps(demo_secrets))
    return demo_secrets


def _listen(port: int | None) -> socket.socket:
    """Listen at `port`; without one at the default port, or at any free one if that is taken."""
    if port is not None:
        return listen(_HOST, port)
    try:
        return listen(_HOST, _DEFAULT_PORT)
    except AddressTaken:
        return listen(_HOST, 0)


def _settings(rivya_url: str, url: str, stored: _Secrets) -> Settings:
    return load(
        rivya_api_key=_KEY,
        rivya_base_url=rivya_url,
        rivya_signing_secret=None,
        receiver_public_url=url,
        receiver_api_tokens=f"demo:admin:{stored.token}",
        receiver_encryption_keys=stored.encryption_key,
        receiver_poll_grace=str(_GRACE_SECONDS),
        receiver_poll_interval="2",
        receiver_notify_allow=_HOST,
        receiver_callback_secret=stored.callback_secret,
        receiver_callback_allow=_HOST,
        database_url=f"sqlite+aiosqlite:///{_FOLDER}/receiver.db",
    )


class _Program:
    """A program with a webhook: verifies each call by the Standard Webhooks specification, and prints its event."""

    def __init__(self) -> None:
        self.url = ""
        self.secret = ""
        self.is_called = asyncio.Event()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Listen at a free port of this machine."""
        async with await asyncio.start_server(self._answer, _HOST, 0) as server:
            self.url = f"http://{_HOST}:{server.sockets[0].getsockname()[1]}/hook"
            yield

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines = (await reader.readuntil(b"\r\n\r\n")).splitlines()[1:-1]
        headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(b":") for line in lines)]
        body = await reader.readexactly(int(dict(headers)[b"content-length"]))
        now, verifier = datetime.now(UTC), Verifier(parse_scheme("standard-webhooks"), [self.secret])
        is_genuine = isinstance(verifier.verify(headers, body, now), Verified)
        writer.write(b"HTTP/1.1 %d -\r\nContent-Length: 0\r\n\r\n" % (204 if is_genuine else 401))
        await writer.drain()
        writer.close()
        if is_genuine:
            event = orjson.loads(body)
            shown = f"{_time(now)}  notify   {event['type']:<24} {event['data']['id']}"
            typer.echo(f"{shown}  to {self.url}, signed")
            self.is_called.set()


async def _show(service: Service, sandbox: Sandbox, url: str, token: str) -> None:
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=30, trust_env=False) as client:
        async with asyncio.timeout(_READY_SECONDS):
            while not await _is_ready(client, sandbox):  # noqa: ASYNC110 - over HTTP, as any client does
                await asyncio.sleep(0.1)
        typer.echo("ready: the endpoint is registered, its one-time secret stored encrypted\n")
        program = _Program()
        async with program.listening():
            await _show_outcomes(service, client, program)
        typer.echo("\nall settled: every outcome is known, whatever became of its callback")
        typer.echo(await _deliveries(client))


async def _is_ready(client: httpx.AsyncClient, sandbox: Sandbox) -> bool:
    """Whether the endpoint is registered at this sandbox: a kept record begins with that of the sandbox before it."""
    if not (await client.get("/readyz")).is_success:
        return False
    endpoint = (await client.get("/api/v1/endpoint")).raise_for_status().json()
    return endpoint["rivya_id"] in sandbox.endpoints.by_id


async def _show_outcomes(service: Service, client: httpx.AsyncClient, program: _Program) -> None:
    wanted = {"name": "demo", "url": program.url, "event_types": ["generation.failed"]}
    webhook = (await client.post("/api/v1/webhooks", json=wanted)).raise_for_status().json()
    program.secret = webhook["signing_secret"]
    with service.changes.listen() as transitions:
        typer.echo(f"submitting {len(_CASES)} generations; a callback is overdue after {_GRACE_SECONDS} s here\n")
        names: dict[str, str] = {}
        for name, model, sandbox in _CASES:
            body = {"model": model, "prompt": name, "params": {"sandbox": sandbox}}
            response = await client.post("/api/v1/generations", json=body)
            response.raise_for_status()
            names[response.json()["id"]] = name
        open_ids = set(names)
        while open_ids:
            transition = await transitions.get()
            typer.echo(_line(transition, names.get(transition.generation_id, "")))
            if transition.to_status.is_terminal:
                open_ids.discard(transition.generation_id)
    async with asyncio.timeout(_READY_SECONDS):
        await program.is_called.wait()
    await client.delete(f"/api/v1/webhooks/{webhook['id']}")


async def _deliveries(client: httpx.AsyncClient) -> str:
    applied = (await client.get("/api/v1/deliveries", params={"outcome": "applied"})).json()["data"]
    again = [delivery for delivery in applied if delivery["attempts"] > 1]
    named = ", ".join(f"{delivery['event_id']} came {delivery['attempts']} times" for delivery in again)
    return f"{len(applied)} deliveries recorded, each with one effect{f' ({named})' if named else ''}"


def _line(transition: Transition, name: str) -> str:
    step = f"{transition.from_status or '(new)'} → {transition.to_status}"
    return f"{_time(transition.recorded_at)}  {transition.source:<8} {step:<24} {transition.generation_id}  {name}"


def _time(time: datetime) -> str:
    return time.strftime("%H:%M:%S.%f")[:-3]


def _examples(url: str, token: str) -> str:
    """Commands that work unchanged while the demonstration serves."""
    auth = f"-H 'Authorization: Bearer {token}'"
    body = '{"model": "z-image", "prompt": "a red fox in the snow"}'
    return f"""
still serving; try (Ctrl-C ends it):

  curl -s {auth} {url}/api/v1/generations
  curl -s {auth} -H 'Content-Type: application/json' -H 'Idempotency-Key: my-first' \\
       -d '{body}' {url}/api/v1/generations
  curl -s {auth} '{url}/api/v1/generations/TASK_ID?wait=30'
  curl -s {auth} {url}/api/v1/generations/TASK_ID/transitions
  curl -s {auth} {url}/api/v1/deliveries
  curl -s {auth} {url}/api/v1/endpoint
  curl -s {url}/readyz
  curl -s {url}/metrics

  export RECEIVER_URL={url} RECEIVER_TOKEN={token}    # for README's quickstart, and for
  .venv/bin/rivya-receiver generations list

and in a browser:

  {url}/console#token={token}    # the console: press "Sign in"
  {url}/docs    # the API
"""
