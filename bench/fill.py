"""Fills the tables on either database: generations that are open or settled, and what led to them."""

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import asyncpg

from app.core.records import uuid7_beginning
from bench.world import World

SIZES = (10_000, 1_000_000, 5_000_000)
HISTORY = 1_000_000
"""Deliveries and transitions of the big database."""
SUBMISSIONS = 200_000
NOTIFICATIONS = 200_000
"""And as many entries of the audit."""
PAST = 2_000_000
PAST_MODEL = "model-past"
"""Of the first `PAST` generations: most common of all, and never used since."""
BIG = "five million generations"
_AT_ONCE = 20_000

_GENERATIONS = (
    *("id", "status", "rivya_object", "model", "reserved_credits", "final_credits", "client_request_id"),
    *("submitted_by", "first_seen_at", "settled_at", "failed_at", "settled_by", "callback_received_at"),
    *("last_number", "revision", "polls"),
)
_POLLS = (
    *("generation_id", "model", "first_seen_at", "source", "token", "state", "next_poll_at", "polls", "failures"),
    "not_found_count",
)
_POLLED_0_1 = ("tracking", "next_poll_at", "poll_failures", "not_found_count")
_TRANSITIONS = ("generation_id", "number", "from_status", "to_status", "source", "event_id", "recorded_at")
_DELIVERIES = (
    *("event_id", "event_type", "generation_id", "endpoint_id", "received_at", "outcome", "attempts", "headers"),
    "body",
)
_SUBMISSIONS = (
    *("id", "idempotency_key", "request_hash", "request", "state", "is_final", "response_status", "response"),
    *("generation_id", "attempts", "retries", "sent_at", "next_attempt_at", "created_at", "resolved_at"),
)
_NOTIFICATIONS = (
    *("id", "queue", "subscription_id", "token", "event_id", "event_type", "generation_id", "number", "created_at"),
    *("ended_at", "attempts", "state", "attempt_log", "body"),
)
_AUDIT = ("id", "recorded_at", "actor", "action", "target")
_USAGE = ("hour", "submitted_by", "model", "generations", "open", "reserved_credits", "final_credits")
_NULL = "\\N"
_BODY = "a body of Rivya " * 30
_UNUSUAL = {7: "unknown_type", 8: "unreadable", 9: "conflict"}
"""Outcomes of three deliveries of every 100,000."""

# Rows are lines of PostgreSQL's text format: tabs between values. SQLite gets the same values.


def big(world: World) -> str:
    """The URL of a database with `SIZES[-1]` generations and `HISTORY`: what an earlier section left, or made now."""
    url = world.filled.pop(BIG, None)
    if url is None:
        url = world.fresh("postgresql")
        fill(url, first=1, last=SIZES[-1])
        fill_history(url, last=HISTORY)
    return url


def fill(url: str, *, first: int, last: int, due_each: int = 100) -> None:
    """Insert the generations `task_<first>` to `task_<last>`: each `due_each`th is open and due, the others settled.

    Every twentieth settled one has failed.
    """
    _fill(
        url,
        generations=(_GENERATIONS, _lines(_generation, first, last, due_each)),
        polls=(_POLLS, _lines(_poll, first, last, due_each)),
    )


def fill_open(url: str, *, first: int, last: int, is_release_0_1: bool = False) -> None:
    """Insert generations that were submitted and are not polled soon: their callbacks are yet to come."""
    transitions = (_TRANSITIONS, _lines(_transition, first, last, 1))
    if is_release_0_1:
        columns = (*(it for it in _GENERATIONS if it != "failed_at"), *_POLLED_0_1)
        _fill(url, generations=(columns, _lines(_generation_0_1, first, last, 1)), transitions=transitions)
        return
    _fill(
        url,
        generations=(_GENERATIONS, _lines(_open_generation, first, last, 1)),
        polls=(_POLLS, _lines(_distant_poll, first, last, 1)),
        transitions=transitions,
    )


def fill_history(url: str, *, last: int, due_each: int = 100) -> None:
    """Insert what led to the generations 1 to `last`; 1 delivery in 33,333 is out of the ordinary."""
    _fill(
        url,
        deliveries=(_DELIVERIES, _lines(_delivery, 1, last, due_each)),
        transitions=(_TRANSITIONS, _lines(_transition, 1, last, due_each)),
        submissions=(_SUBMISSIONS, _lines(_submission, 1, min(last, SUBMISSIONS), due_each)),
        notifications=(_NOTIFICATIONS, _lines(_notification, 1, min(last, NOTIFICATIONS), due_each)),
        audit=(_AUDIT, _lines(_audit, 1, min(last, NOTIFICATIONS), due_each)),
        usage_hours=(_USAGE, _usage()),
    )


def _lines(line: Callable[[int, str, str], str | None], first: int, last: int, due_each: int) -> Iterator[str]:
    start = datetime.now(UTC) - timedelta(days=2)
    for begin in range(first - first % 1000, last + 1, 1000):
        second = f"{start + timedelta(seconds=begin // 1000):%Y-%m-%d %H:%M:%S}"
        for number in range(max(begin, first), min(begin + 1000, last + 1)):
            status = "queued" if number % due_each == 0 else _final_status(number)
            values = line(number, f"{second}.{number % 1000:03d}000", status)
            if values is not None:
                yield values


def _final_status(number: int) -> str:
    return "failed" if number % 20 == 1 else "succeeded"


def _generation(number: int, at: str, status: str) -> str:
    model = PAST_MODEL if number <= PAST else f"model-{number % 20}"
    about = f"{model}\t1\t{{}}\torder-{number}\ttoken-{number % 9}\t{at}"
    rivya = f'{{"id":"task_{number}","status":"{{}}","model":"z-image","reserved_credits":1,"final_credits":{{}}'
    dates = ',"created_at":"2026-05-11T00:00:00.000Z","updated_at":"2026-05-11T00:01:00.000Z"'
    if status == "queued":
        rivya = rivya[1:].format("queued", "null")
        return (
            f'task_{number}\tqueued\t{{{rivya}{dates},"result":null,"error":null}}\t{about.format(_NULL)}'
            f"\t{_NULL}\t{_NULL}\t{_NULL}\t{_NULL}\t1\t1\t0"
        )
    result = f"https://media.example/results/task_{number}.png"
    rivya = rivya[1:].format(status, 1)
    return (
        f"task_{number}\t{status}\t{{{rivya}{dates},"
        f'"result":{{"primary_url":"{result}","urls":["{result}"]}},"error":null}}\t{about.format(1)}'
        f"\t{at}\t{at if status == 'failed' else _NULL}\twebhook\t{at}\t1\t1\t0"
    )


def _open_generation(number: int, at: str, status: str) -> str:
    """With the model that its callback will tell."""
    values = _generation(number, at, status).split("\t")
    values[_GENERATIONS.index("model")] = "z-image"
    return "\t".join(values)


def _generation_0_1(number: int, at: str, status: str) -> str:
    values = _open_generation(number, at, status).split("\t")
    del values[_GENERATIONS.index("failed_at")]
    return "\t".join((*values, "watching", _later(at), "0", "0"))


def _poll(number: int, at: str, status: str) -> str | None:
    if status != "queued":
        return None
    return f"task_{number}\tmodel-{number % 20}\t{at}\tsubmit\ttoken-{number % 9}\twatching\t{at}\t0\t0\t0"


def _distant_poll(number: int, at: str, status: str) -> str | None:  # noqa: ARG001
    line = f"task_{number}\tz-image\t{at}\tsubmit\ttoken-{number % 9}\twatching"
    return f"{line}\t{_later(at)}\t0\t0\t0"


def _transition(number: int, at: str, status: str) -> str:
    if status == "queued":
        return f"task_{number}\t1\t{_NULL}\tqueued\tsubmit\t{_NULL}\t{at}"
    return f"task_{number}\t1\t{_NULL}\t{status}\twebhook\tevt_{number}\t{at}"


def _delivery(number: int, at: str, status: str) -> str:  # noqa: ARG001
    outcome = _UNUSUAL.get(number % 100_000, "applied")
    kind = "archived" if outcome == "unknown_type" else _final_status(number)
    return f"evt_{number}\tgeneration.{kind}\ttask_{number}\tendpoint\t{at}\t{outcome}\t1\t{{}}\t{_BODY}"


def _submission(number: int, at: str, status: str) -> str:
    about = f"submission-{number}\tkey-of-{number}\t{number:032x}\t"
    if status == "queued":
        return f"{about}\tunknown\t0\t{_NULL}\t\t{_NULL}\t1\t0\t{at}\t{_later(at)}\t{at}\t{_NULL}"
    return f"{about}\taccepted\t1\t200\t\ttask_{number}\t1\t0\t{at}\t{_NULL}\t{at}\t{at}"


def _notification(number: int, at: str, status: str) -> str:  # noqa: ARG001
    state = {3: "dead", 4: "canceled"}.get(number % 1000, "delivered")
    about = f"wh_{number % 18}\twh_{number % 18}\ttoken-{number % 9}\tevt_{number}\tgeneration.succeeded"
    return f"{_id(number, at)}\t{about}\ttask_{number}\t1\t{at}\t{at}\t1\t{state}\t[]\t{_BODY}"


def _audit(number: int, at: str, status: str) -> str:  # noqa: ARG001
    action = "token.created" if number % 1000 == 3 else "call.refused"
    return f"{_id(number, at)}\t{at}\ttoken-{number % 9}\t{action}\tshop"


def _id(number: int, at: str) -> str:
    """As uuid7 makes them: the time comes first."""
    beginning = uuid7_beginning(datetime.fromisoformat(f"{at}+00:00"))
    return f"{beginning}-7000-8000-{number:012x}"


def _usage() -> Iterator[str]:
    """Of 9 tokens with 20 models in every hour of 30 days."""
    end = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    for hour in range(30 * 24):
        at = f"{end - timedelta(hours=hour + 1):%Y-%m-%d %H:%M:%S}.000000"
        for which in range(9 * 20):
            yield f"{at}\ttoken-{which % 9}\tmodel-{which // 9}\t3\t0\t3\t3"


def _later(at: str) -> str:
    return f"2100{at[4:]}"


def _fill(url: str, **tables: tuple[Sequence[str], Iterator[str]]) -> None:
    """Insert lines by table. On PostgreSQL also vacuum, as autovacuum would; on SQLite nothing of ours runs ANALYZE."""
    if url.startswith("sqlite"):
        _fill_sqlite(url.partition("///")[2], tables)
    else:
        asyncio.run(_fill_postgres(url.replace("+asyncpg", ""), tables))


def _fill_sqlite(path: str, tables: dict[str, tuple[Sequence[str], Iterator[str]]]) -> None:
    connection = sqlite3.connect(path)
    try:
        connection.execute("PRAGMA synchronous = off")
        for table, (columns, lines) in tables.items():
            values = (tuple(None if it == _NULL else it for it in line.split("\t")) for line in lines)
            places = ", ".join("?" * len(columns))
            connection.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places})", values)  # noqa: S608
        connection.commit()
    finally:
        connection.close()


async def _fill_postgres(url: str, tables: dict[str, tuple[Sequence[str], Iterator[str]]]) -> None:
    connection: Any = await asyncpg.connect(url)
    try:
        await connection.execute("SET synchronous_commit = off; SET timezone = 'UTC'")
        for table, (columns, lines) in tables.items():
            await connection.copy_to_table(table, source=_chunks(lines), columns=columns, timeout=600)
            await connection.execute(f"VACUUM ANALYZE {table}", timeout=600)
    finally:
        await connection.close()


async def _chunks(lines: Iterable[str]) -> Any:  # noqa: ANN401 - asyncpg tells no types
    iterator = iter(lines)
    while chunk := list(islice(iterator, _AT_ONCE)):
        yield ("\n".join(chunk) + "\n").encode()
