"""`python -m migrations.partitioning apply | undo | ahead [MONTHS] | drop DATE`, on the PostgreSQL of DATABASE_URL."""

import asyncio
import os
import sys
from datetime import UTC, datetime

from sqlalchemy.exc import DBAPIError

from migrations.partitioning.commands import Refused, ahead, apply, drop, undo

AHEAD = 3
"""Months, where the command names none."""


async def run(url: str, words: list[str]) -> list[str]:
    """What to tell. Raises `Refused` with a message that names the words there are."""
    match words:
        case ["apply"]:
            await apply(url)
            return ["partitioned by month", *await ahead(url, AHEAD)]
        case ["undo"]:
            await undo(url)
            return ["whole again"]
        case ["ahead"]:
            return await ahead(url, AHEAD)
        case ["ahead", months] if months.isdecimal():
            return await ahead(url, int(months))
        case ["drop", date]:
            return await drop(url, _midnight(date))
    raise Refused(__doc__)


def main() -> int:
    """The exit status: 0 done, 1 the database refused a step (try again), 2 not understood or not possible here."""
    try:
        told = asyncio.run(run(os.environ.get("DATABASE_URL", ""), sys.argv[1:]))
    except Refused as refused:
        sys.stderr.write(f"{refused}\n")
        return 2
    except DBAPIError as error:
        sys.stderr.write(f"not done, and can be tried again: {error.orig}\n")
        return 1
    sys.stdout.writelines(f"{line}\n" for line in told)
    return 0


def _midnight(date: str) -> datetime:
    try:
        return datetime.strptime(date, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError as error:
        raise Refused(f"{date}: a date is written as 2027-01-31") from error


if __name__ == "__main__":
    sys.exit(main())
