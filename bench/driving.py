"""Has a service say all that it has to say to its database: every route, every loop, every command of the operator."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from bench import events, load
from bench.servers import TOKEN, Server

TIMES = 5
LOOPS_SECONDS = 13.0
"""Longer than the longest rest of a loop that has something to do."""
_COMMAND = Path(sys.executable).with_name("rivya-receiver")
_GENERATIONS = (
    *("", "status=failed", "status=queued", "status=succeeded", "tracking=watching", "tracking=settled"),
    *("tracking=lost", "model=model-7", "model=unheard-of", "client_request_id=order-77", "submitted_by=token-7"),
    *("submitted_by=nobody", "created_after=2020-01-01T00:00:00Z", "created_before=2040-01-01T00:00:00Z"),
    *("status=succeeded&tracking=settled", "status=queued&tracking=watching"),
)
_DELIVERIES = (
    *("", "generation_id=task_77", "outcome=applied", "outcome=unreadable", "outcome=conflict", "outcome=test"),
    *("event_type=generation.succeeded", "event_type=generation.archived", "event_type=unheard.of"),
    *("event_type=generation.failed", "received_after=2020-01-01T00:00:00Z", "received_before=2040-01-01T00:00:00Z"),
)
_READS = (
    *(
        "generations/task_77",
        "generations/unheard-of",
        "generations/task_77/transitions",
        "generations/task_100?wait=1",
    ),
    *("deliveries/evt_77", "deliveries/unheard-of", "usage", "usage?from=2026-01-01&to=2026-12-31", "rejections"),
    *("endpoint", "endpoint/history"),
)
_COMMANDS = (
    *("deliveries replay --outcome unreadable", "deliveries replay --outcome conflict --apply"),
    *("deliveries replay evt_77", "generations poll task_200", "generations forget task_77", "check", "endpoint"),
    "keys rotate",
)


def deliver(server: Server, name: str, count: int) -> None:
    """Deliver `count` events for new generations and `count` for tracked ones, and all of them again."""
    ids = [f"tracked_{name}_{number}" for number in range(count)]
    load.run([server.port], [track(generation_id) for generation_id in ids], connections=16, seconds=30)
    for batch in (events.make(name, count), events.about(f"{name}k", ids, failed_each=10, is_known=True)):
        for _ in range(2):
            load.run([server.port], batch.requests, connections=16, seconds=10)


def track(generation_id: str) -> bytes:
    """The request that tells of a generation which was created elsewhere."""
    head = f"PUT /api/v1/generations/{generation_id} HTTP/1.1\r\nHost: r\r\nAuthorization: Bearer {TOKEN}"
    return f"{head}\r\nContent-Length: 0\r\n\r\n".encode()


def read(server: Server) -> None:
    """Every route that reads, several times, and the lists beyond their first page."""
    with _client(server) as client:
        for _ in range(TIMES):
            for kind, choices in (("generations", _GENERATIONS), ("deliveries", _DELIVERIES)):
                for chosen in choices:
                    _two_pages(client, f"/api/v1/{kind}?{chosen}")
            for path in _READS:
                client.get(f"/api/v1/{path}")
            for path in ("/metrics", "/readyz"):
                client.get(path)


def write(server: Server) -> None:
    """Every route that writes; a create twice under one key; and something that is no delivery."""
    with _client(server) as client:
        for number in range(TIMES):
            body = {"model": "z-image", "prompt": "a river"}
            for _ in range(2):
                client.post("/api/v1/generations", json=body, headers={"Idempotency-Key": f"key-{number}"})
            client.put(f"/api/v1/generations/made-elsewhere-{number}", json={"model": "z-image"})
            client.post("/rivya/webhook", content=b"{}")
        for act in ("test", "rotate-secret", "repin"):
            client.post(f"/api/v1/endpoint/{act}")


def operate(environment: Mapping[str, str]) -> None:
    """Every command that has a database of its own to say something to; what it finds is not our concern here."""
    for words in _COMMANDS:
        subprocess.run(
            [str(_COMMAND), *words.split()],
            env={"PATH": os.environ.get("PATH", os.defpath), **environment},
            check=False,
            capture_output=True,
            timeout=120,
        )


def let_loops_turn() -> None:
    """They have nothing that would tell when each has had its turn."""
    time.sleep(LOOPS_SECONDS)


def _client(server: Server) -> httpx.Client:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    return httpx.Client(base_url=f"http://127.0.0.1:{server.port}", headers=headers, timeout=60)


def _two_pages(client: httpx.Client, path: str) -> None:
    answer: dict[str, Any] = client.get(path).json()
    if following := answer.get("next_cursor"):
        client.get(f"{path}&cursor={following}")
