"""Looks up our endpoint and its history for those who ask."""

from app.core.auth import Caller, Role
from app.core.clock import Clock
from app.core.database import Database
from app.endpoint import history
from app.endpoint.endpoint import current
from app.endpoint.keyring import Keyring
from app.endpoint.operator import EndpointUnknown
from app.endpoint.registry import Registry
from app.endpoint.views import EndpointView, HistoryView


class Showing:
    """Reads the database each time; never a secret. Methods raise `DatabaseUnavailable`."""

    def __init__(self, database: Database, keyring: Keyring, *, clock: Clock) -> None:
        self._database = database
        self._registry = Registry(database)
        self._keyring = keyring
        self._clock = clock

    async def endpoint(self, caller: Caller) -> EndpointView:
        """The live endpoint, else the one that is to be; its path for admin only. Raises `EndpointUnknown`."""
        known = self._keyring.known
        scheme = None if known.scheme is None else str(known.scheme)
        endpoint = None if self._keyring.is_off else current(await self._registry.endpoints())
        if endpoint is None and self._keyring.is_fixed:
            return EndpointView.made_by_hand(scheme=scheme, now=self._clock.now())
        if endpoint is None:
            raise EndpointUnknown("No endpoint is registered yet.")
        secrets = await self._registry.secrets(now=self._clock.now())
        return EndpointView.of(endpoint, secrets, scheme=scheme, shows_path=caller.role.allows(Role.ADMIN))

    async def history(self) -> HistoryView:
        """What became of all our endpoints, newest first."""
        return HistoryView.of(await history.newest(self._database))
