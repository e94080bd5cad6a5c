"""What `rivya-receiver check --public` finds of the way from Rivya to us: the proxy, TLS, clocks, a test delivery."""

from collections.abc import AsyncIterator

from app.cli.check_database import UNTELLING, UNTIL_MIGRATED, untold
from app.cli.check_line import Line
from app.core.clock import SystemClock
from app.core.database import Database
from app.core.settings import Settings
from app.endpoint.probe import ProbeKey
from app.endpoint.reachability import Reachability
from app.endpoint.repository import Registry
from app.rivya.client import RivyaClient


async def reached(database: Database, settings: Settings, *, migrated: Line) -> AsyncIterator[Line]:
    """A line for each thing looked at."""
    if not migrated.ok:
        yield Line("public URL reached", False, UNTIL_MIGRATED)
        return
    api_key = settings.rivya_api_key.get_secret_value()
    async with RivyaClient(settings.rivya_base_url, api_key) as client:
        reachability = Reachability(
            client,
            Registry(database),
            clock=SystemClock(),
            key=ProbeKey(api_key),
            public_url=settings.receiver_public_url,
        )
        try:
            async for finding in reachability.findings():
                yield Line(finding.name.replace("_", " "), finding.ok, finding.detail)
        except UNTELLING as error:
            yield Line("public URL reached", False, untold(error))
