"""Encrypts every stored secret anew under the newest key, so that older keys can be put away."""

from dataclasses import dataclass

from sqlalchemy import select, update

from app.core.database import Database
from app.core.encryption import SealingKeys
from app.endpoint.tables import endpoint_secrets

_ALL = select(endpoint_secrets.c.id, endpoint_secrets.c.sealed).order_by(endpoint_secrets.c.id).with_for_update()


@dataclass(frozen=True, slots=True)
class Resealed:
    """What was done."""

    changed: int
    total: int


async def reseal(database: Database, keys: SealingKeys) -> Resealed:
    """One transaction: all are encrypted under the newest key afterwards, or nothing was changed.

    Raises `SealBroken` where one can't be opened, `DatabaseUnavailable`.
    """
    async with database.transaction() as connection:
        stored = (await connection.execute(_ALL)).all()
        changed = [(row.id, keys.open(row.sealed)) for row in stored if not keys.is_newest(row.sealed)]
        for secret_id, secret in changed:
            anew = update(endpoint_secrets).where(endpoint_secrets.c.id == secret_id)
            await connection.execute(anew.values(sealed=keys.seal(secret)))
        # Those that are under the newest key already must open too, or a typing error would go unnoticed.
        for row in stored:
            if keys.is_newest(row.sealed):
                keys.open(row.sealed)
    return Resealed(len(changed), len(stored))
