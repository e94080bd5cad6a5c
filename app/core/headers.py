"""Checks text for HTTP headers; imports nothing, so that settings, commands and clients share it."""


def is_header_value(text: str) -> bool:
    """Whether a header carries `text` unchanged: printable ASCII, not empty, without spaces at its ends."""
    return bool(text) and text.isascii() and text.isprintable() and text == text.strip()
