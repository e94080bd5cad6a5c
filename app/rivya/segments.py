"""Ids as segments of a path."""

from urllib.parse import quote

from app.rivya.errors import RivyaNotFound
from app.rivya.storable import usable_name


def segment(identity: str) -> str:
    """Return an id as one path segment. One that can't be an id, or that servers take for a way up, is not found."""
    if usable_name(identity) is None or identity in {".", ".."}:
        raise RivyaNotFound(404, "not_found", "this can't be an id of Rivya's")
    return quote(identity, safe="")
