"""Puts the gateway together from the settings."""

from app.core.clock import Clock
from app.core.settings import Settings
from app.gateway.models_cache import Catalogue
from app.gateway.service import Balance, Gateway
from app.gateway.streaming import Slots
from app.gateway.upstream import Note, Relay, patience_of
from app.rivya.client import RivyaClient


def assemble(client: RivyaClient, settings: Settings, clock: Clock, *, note: Note) -> Gateway:
    """The gateway; `note` is told of Rivya's 429s."""
    patience = patience_of(chat=settings.rivya_chat_timeout, stream=settings.rivya_stream_timeout)
    relay = Relay(client, patience=patience, note=note)
    catalogue = Catalogue(relay, clock, ttl=settings.receiver_models_ttl)
    return Gateway(relay, Slots(settings.receiver_rivya_concurrency), catalogue, Balance(clock))
