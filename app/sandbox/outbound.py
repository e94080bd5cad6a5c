"""The one HTTP client that deliveries leave by: no redirects, no proxies, a short time-out."""

import httpx


class Unreachable(Exception):
    """No answer came; the message is the kind of failure."""


class Outbound:
    """Posts deliveries; its client is made with the first one, in the loop that sends it."""

    def __init__(self) -> None:
        self._client: httpx.AsyncClient | None = None

    async def post(self, url: str, body: bytes, *, headers: dict[str, str], patience: float) -> int:
        """The status of the answer; raises `Unreachable`, also after `patience` seconds of silence."""
        if self._client is None:
            self._client = httpx.AsyncClient(trust_env=False, follow_redirects=False)
        try:
            response = await self._client.post(url, content=body, headers=headers, timeout=patience)
        except (httpx.HTTPError, httpx.InvalidURL) as failure:
            raise Unreachable(type(failure).__name__) from failure
        return response.status_code

    async def close(self) -> None:
        """Close all connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()
