"""What `rivya-receiver check` finds of our registration: written down here, and known, active and ours at Rivya."""

from app.cli.check_database import UNTELLING, UNTIL_MIGRATED, untold
from app.cli.check_line import Line
from app.core.database import Database
from app.core.settings import Settings
from app.endpoint.errors import explain
from app.endpoint.models import Endpoint, callback_url, current, is_same_place, live
from app.endpoint.repository import Registry
from app.rivya.client import RivyaClient
from app.rivya.errors import RivyaError

_NAME = "endpoint registered"


async def registered(client: RivyaClient, database: Database, settings: Settings, *, migrated: Line) -> Line:
    """The endpoint that serves, as Rivya sees it."""
    if settings.receiver_public_url is None or not settings.registers_endpoint:
        return Line(_NAME, True, "made by hand: RIVYA_SIGNING_SECRET is set")
    if not migrated.ok:
        return Line(_NAME, False, UNTIL_MIGRATED)
    try:
        endpoints = await Registry(database).endpoints()
    except UNTELLING as error:
        return Line(_NAME, False, untold(error))
    serving = live(endpoints)
    if serving is None or serving.rivya_id is None:
        known = current(endpoints)
        why = "" if known is None or known.last_error is None else f": {explain(known.last_error)}"
        return Line(_NAME, False, f"not yet{why or '; `rivya-receiver serve` registers it'}")
    return await _at_rivya(client, serving, serving.rivya_id, settings.receiver_public_url)


async def _at_rivya(client: RivyaClient, serving: Endpoint, rivya_id: str, public_url: str) -> Line:
    try:
        found = await client.get_endpoint(rivya_id)
    except RivyaError as error:
        return Line(_NAME, False, f"{rivya_id}: {error}")
    if not is_same_place(found.url, callback_url(public_url, serving.path_key)):
        return Line(
            _NAME, False, f"{rivya_id} leads elsewhere than RECEIVER_PUBLIC_URL; `rivya-receiver serve` moves it"
        )
    return Line(_NAME, found.status in (None, "active"), f"{rivya_id} is {found.status or 'known'} at Rivya")
