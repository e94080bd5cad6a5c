"""Places at which a process that looks after the registration may die: each statement, commit and piece of a call.

A point is named by what is under way, `SELECT endpoints`, `commit after UPDATE endpoints`, `POST webhooks: half sent`.
The libraries below our code are hooked, our code is as it ships.
"""

import asyncio
import json
import os
import re
import signal
from pathlib import Path
from typing import Any

from httpcore._backends import anyio as backend
from sqlalchemy import Connection, event
from sqlalchemy.engine import Engine

_TABLES = ("endpoints", "endpoint_secrets", "endpoint_history", "leases")
_LAST = "last_statement"


class FaultPoints:
    """Notes every point that is passed, and kills the process at each one that its script names.

    The script is a JSON file that the test writes: `phase`, and the points in `kill_at`. What is passed is appended to
    `<script>.passed`, last the point of a kill.
    """

    def __init__(self, script: str) -> None:
        self._script = Path(script)
        self._passed = Path(f"{script}.passed")

    def install(self) -> None:
        event.listen(Engine, "after_cursor_execute", self._after_statement)
        event.listen(Engine, "commit", self._before_commit)
        write, read = backend.AnyIOStream.write, backend.AnyIOStream.read
        points = self

        async def spoilt_write(stream: Any, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
            call = _call(buffer)
            if call is None or not _is_reconciler():
                await write(stream, buffer, timeout)
                return
            stream.call_under_way = call
            points.passed(f"{call}: not sent")
            half = len(buffer) // 2
            await write(stream, buffer[:half], timeout)
            points.passed(f"{call}: half sent")
            await write(stream, buffer[half:], timeout)
            points.passed(f"{call}: sent")

        async def spoilt_read(stream: Any, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
            received = await read(stream, max_bytes, timeout)
            call = getattr(stream, "call_under_way", None)
            if call is not None and received:
                points.passed(f"{call}: answered")
            return received

        backend.AnyIOStream.write = spoilt_write  # type: ignore[method-assign, assignment]
        backend.AnyIOStream.read = spoilt_read  # type: ignore[method-assign, assignment]

    def passed(self, point: str) -> None:
        script = json.loads(self._script.read_text())
        with self._passed.open("a") as passed:
            passed.write(json.dumps([script["phase"], point]) + "\n")
        if point in script["kill_at"]:
            os.kill(os.getpid(), signal.SIGKILL)

    def _after_statement(self, connection: Connection, _cursor: Any, statement: str, *_: Any) -> None:
        statement_name = _statement_name(statement)
        if statement_name is not None:
            connection.info[_LAST] = statement_name
            self.passed(f"after {statement_name}")

    def _before_commit(self, connection: Connection) -> None:
        statement_name = connection.info.pop(_LAST, None)
        if statement_name is not None:
            self.passed(f"before the commit of {statement_name}")


def _statement_name(statement: str) -> str | None:
    """The statement in two words, where it is one of registration: the verb, and the first of our tables in it."""
    verb, table = statement.split(maxsplit=1)[0], re.search(rf"\b({'|'.join(_TABLES)})\b", statement)
    if table is None or (verb == "SELECT" and not _is_reconciler()):
        return None
    changed = re.findall(r"(\w+)=", statement.partition(" SET ")[2].partition(" WHERE ")[0])
    columns = [name for name in changed if name not in ("updated_at", "state_since", "last_error")]
    if (
        verb == "UPDATE"
        and any(name in columns for name in ("refusals", "last_verified_at"))
        and "rivya_id" not in columns
    ):
        return None  # how deliveries fare, not registration
    return " ".join([verb, table[0], *columns[:2]])


def _is_reconciler() -> bool:
    task = asyncio.current_task()
    return task is not None and task.get_name() == "Reconciler"


def _call(buffer: bytes) -> str | None:
    match = re.match(rb"(GET|POST|PATCH|DELETE) /api/v1/webhooks(/[^/ ]+)?(/[a-z-]+)? ", buffer)
    if match is None:
        return None
    return f"{match[1].decode()} webhooks{'/…' if match[2] else ''}{(match[3] or b'').decode()}"
