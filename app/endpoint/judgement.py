"""What the answers to a probe say about the way to us, and what to do about it."""

import hashlib
from typing import Any, Final

from app.core.errors import Finding
from app.endpoint.callback_url import PATH
from app.endpoint.probe import Probe, changed_headers
from app.rivya.knocking import Knocked, KnockFailed

SLOW_SECONDS: Final = 2.0
"""Rivya's time-out is documented as short, not how short."""
REFUSED = (
    "came and was refused: GET /api/v1/rejections says why. If its signature does not match, "
    "`rivya-receiver endpoint rotate` gives a new secret, `rivya-receiver endpoint repin` proves the scheme anew"
)
SILENT = "does a firewall or the proxy let Rivya's requests in? Rivya's own list of deliveries tells how it fared"


def found(name: str, detail: str, *, ok: bool = False) -> Finding:
    """One finding; nothing of this makes the service unready."""
    return Finding(name, ok=ok, detail=detail, is_required=False)


def unreached(failure: KnockFailed) -> Finding:
    """Nothing answered at the public URL."""
    if failure.is_tls:
        return found("public_url", f"TLS fails ({failure}): give the proxy a valid certificate with its whole chain")
    return found("public_url", f"nothing answers ({failure}): does the name lead to the proxy, and is the proxy up?")


def answered(answer: Knocked, told: dict[str, Any] | None) -> Finding:
    """What answered at the public URL: this receiver, a redirect, a proxy, somebody else."""
    name = "public_url"
    if told is not None and answer.status == 200:
        return found(name, "leads to this receiver", ok=True)
    if 300 <= answer.status < 400:
        where = f" to {answer.location}" if answer.location else ""
        remedy = "set RECEIVER_PUBLIC_URL to where it leads, or let the proxy pass it on"
        return found(name, f"redirects ({answer.status}){where}, and Rivya follows no redirect: {remedy}")
    if answer.status in (502, 503, 504):
        return found(name, f"the proxy answers {answer.status}: does it lead to the port of a running receiver?")
    return found(
        name,
        f"answered {answer.status}, but not by a receiver with our RIVYA_API_KEY: does the proxy pass "
        f"POST {PATH}… on to this receiver, unchanged?",
    )


def slash(answer: Knocked, told: dict[str, Any] | None) -> Finding:
    """The same path with a slash at its end."""
    if told is None:
        return found("trailing_slash", f"a slash at the end makes it {answer.status}: let the proxy pass both forms on")
    return found("trailing_slash", "makes no difference", ok=True)


def body(probe: Probe, told: dict[str, Any]) -> Finding:
    """The bytes, which the signature is over, arrive as they were sent."""
    sent, came = len(probe.body), told.get("size")
    if hashlib.sha256(probe.body).hexdigest() == told.get("sha256"):
        return found("body", f"all {sent} bytes arrive unchanged", ok=True)
    return found(
        "body", f"was changed on the way ({sent} bytes became {came}): switch off whatever rewrites bodies in the proxy"
    )


def headers(probe: Probe, told: dict[str, Any]) -> Finding:
    """The headers, which carry the signature, arrive as they were sent."""
    changed = changed_headers(probe, told)
    if not changed:
        return found("headers", "those of a signature arrive unchanged", ok=True)
    return found("headers", f"{', '.join(changed)} did not arrive as sent: let the proxy pass all request headers on")


def time_taken(answer: Knocked) -> Finding:
    """The way there and back, against a time-out that is short."""
    detail = f"answered within {answer.seconds:.2f} s"
    if answer.seconds <= SLOW_SECONDS:
        return found("time_taken", detail, ok=True)
    return found("time_taken", f"{detail}, and Rivya's time-out is short: look for what slows the way there")
