"""Server-sent events as our command line reads them."""

from app.cli.client.chat import Event, EventReader


def read(chunks: list[bytes]) -> list[Event]:
    reader = EventReader()
    return [event for chunk in chunks for event in reader.feed(chunk)]
