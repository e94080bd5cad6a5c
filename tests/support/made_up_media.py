"""Pictures instead of those that a page would fetch from Rivya: made up, and the same each time."""

import hashlib
from typing import Any

EXPIRED = "expired"
"""In a URL: there is nothing at it any more."""


def made_up_media(url: str) -> dict[str, Any]:
    """The options of `route.fulfill` for one URL."""
    if EXPIRED in url or not url.endswith((".png", ".jpg", ".webp")):
        return {"status": 404, "body": ""}
    return {"status": 200, "content_type": "image/svg+xml", "body": _landscape(hashlib.sha256(url.encode()).digest())}


def _landscape(seed: bytes) -> str:
    """A sun above hills, in colours of its own."""
    hue, sun_x, sun_y = seed[0] * 360 // 256, 80 + seed[1], 70 + seed[2] // 4
    hills = "".join(
        f'<path d="M0 {base} C{120 + seed[place] // 2} {base - 90 - seed[place + 1] // 4} '
        f'{260 + seed[place + 2] // 2} {base + 60} 512 {base - 30} V512 H0 Z" '
        f'fill="hsl({(hue + 20 * place) % 360} 45% {44 - 4 * place}%)"/>'
        for place, base in ((3, 300), (5, 370), (7, 440))
    )
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" width="512" height="512" viewBox="0 0 512 512"><defs>'
        f'<linearGradient id="sky" x2="0" y2="1"><stop stop-color="hsl({hue} 70% 60%)"/>'
        f'<stop offset="1" stop-color="hsl({(hue + 50) % 360} 80% 85%)"/></linearGradient></defs>'
        f'<rect width="512" height="512" fill="url(#sky)"/><circle cx="{sun_x}" cy="{sun_y}" r="46" fill="#fff6d8"/>'
        f"{hills}</svg>"
    )
