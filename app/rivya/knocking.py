"""Send one request to our own public URL, as Rivya would: no redirect followed, the certificate checked."""

import asyncio
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import httpx

from app.core.proxies import ProxyInvalid, proxy_for

_MOST_BYTES: Final = 256 * 1024
"""Several times what an answer of ours may have, which repeats the headers that arrived."""


@dataclass(frozen=True, slots=True)
class Knocked:
    """What answered, and how long it took; no more of the body is kept than `_MOST_BYTES`."""

    status: int
    location: str | None
    body: bytes
    seconds: float


class KnockFailed(Exception):
    """Nothing answered; the text says why. `is_tls`: the connection was made, but not secured."""

    def __init__(self, situation: str, *, is_tls: bool) -> None:
        super().__init__(situation)
        self.is_tls = is_tls


async def knock(url: str, body: bytes, *, headers: Mapping[str, str], seconds: float = 10.0) -> Knocked:
    """POST and read the answer, all within `seconds`. Raises `KnockFailed`."""
    started = time.monotonic()
    try:
        proxy, verify = proxy_for(url), httpx.create_ssl_context()  # which heeds SSL_CERT_FILE
        async with (
            asyncio.timeout(seconds),
            httpx.AsyncClient(timeout=seconds, proxy=proxy, trust_env=False, verify=verify) as client,
            client.stream("POST", url, content=body, headers={"accept-encoding": "identity", **headers}) as answer,
        ):
            told = bytearray()
            async for chunk in answer.aiter_raw():  # not decompressed: that could exceed any bound in one piece
                told += chunk
                if len(told) > _MOST_BYTES:
                    break
    except ProxyInvalid as error:
        raise KnockFailed(str(error), is_tls=False) from error
    except TimeoutError as error:
        raise KnockFailed(f"no whole answer within {seconds:g} s", is_tls=False) from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        tls = _tls_cause(error)
        if tls is not None:
            raise KnockFailed(getattr(tls, "verify_message", "") or "the handshake failed", is_tls=True) from error
        raise KnockFailed(type(error).__name__, is_tls=False) from error
    location = answer.headers.get("location")
    return Knocked(answer.status_code, location, bytes(told[:_MOST_BYTES]), time.monotonic() - started)


def _tls_cause(error: BaseException | None) -> ssl.SSLError | None:
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return error
        error = error.__cause__ or error.__context__
    return None
