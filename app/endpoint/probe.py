"""A probe: a request to our own public URL that shows how the network in between changes deliveries; pure.

Request and answer each carry a MAC made with the Rivya API key, which both sides hold. A probe without the right MAC
is treated as an unsigned delivery.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson

HEADER: Final = "x-receiver-probe"
VALIDITY: Final = timedelta(seconds=300)
_TOKEN: Final = re.compile(r"(\d{1,12})\.([0-9a-f]{32})\.([0-9a-f]{64})")
_ODD: Final = '{ "id" :"evt_probe",\t"text": "\u00fc \\u00fc \\/ \u2028 1e2",  "number": 1.0, "padding": "%s" }\r\n '
RawHeaders = Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Probe:
    """The request to send: a body that any rewriting would change, and headers like those of a signature."""

    nonce: str
    headers: Mapping[str, str]
    body: bytes


class ProbeKey:
    """Creates and verifies probes, with a key derived from Rivya's API key, which every process of ours holds."""

    def __init__(self, api_key: str) -> None:
        self._key = hmac.digest(api_key.encode(), b"rivya-receiver probe", "sha256")

    def make(self, nonce: str, now: datetime) -> Probe:
        """A new probe; `nonce` is 32 hex digits, never used before."""
        signed = f"{int(now.timestamp())}.{nonce}"
        headers = {
            HEADER: f"{signed}.{self._mac('ask', signed)}",
            "content-type": "application/json",
            "rivya-signature": f"t={int(now.timestamp())},v1={nonce * 2}",
            "webhook-id": f"probe_{nonce}",
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": f"v1,{nonce} v1a,{nonce}",
        }
        return Probe(nonce, headers, (_ODD % (nonce * 24)).encode())

    def answer(self, headers: RawHeaders, body: bytes, now: datetime) -> bytes | None:
        """The JSON body that intake answers to a probe of ours; None for any other request."""
        nonce = self._nonce(headers, now)
        if nonce is None:
            return None
        digest = hashlib.sha256(body).hexdigest()
        report = {
            "sha256": digest,
            "size": len(body),
            "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in headers],
            "received_at": now.astimezone(UTC).isoformat(),
            "proof": self._mac("answer", f"{nonce}.{digest}"),
        }
        return orjson.dumps({"probe": report})

    def read(self, probe: Probe, answer: bytes) -> dict[str, Any] | None:
        """Our service's report of the probe as it arrived; None if the answer is not from our service."""
        try:
            report = orjson.loads(answer)["probe"]
            expected = self._mac("answer", f"{probe.nonce}.{report['sha256']}")
            is_ours = hmac.compare_digest(expected.encode(), str(report["proof"]).encode("utf-8", "replace"))
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return None
        return dict(report) if is_ours else None

    def _nonce(self, headers: RawHeaders, now: datetime) -> str | None:
        values = [value for name, value in headers if name == HEADER.encode()]
        match = _TOKEN.fullmatch(values[0].decode("latin-1")) if len(values) == 1 else None
        if match is None:
            return None
        expected = self._mac("ask", f"{match[1]}.{match[2]}")
        is_ours = hmac.compare_digest(expected, match[3])
        is_fresh = abs(int(match[1]) - now.timestamp()) <= VALIDITY.total_seconds()
        return match[2] if is_ours and is_fresh else None

    def _mac(self, what: str, text: str) -> str:
        return hmac.digest(self._key, f"{what}:{text}".encode(), "sha256").hex()


def changed_headers(probe: Probe, report: Mapping[str, Any]) -> list[str]:
    """The names of the headers that did not arrive as they were sent."""
    arrived: dict[str, list[str]] = {}
    for name, value in report.get("headers", ()):
        arrived.setdefault(name, []).append(value)
    return [name for name, value in probe.headers.items() if arrived.get(name) != [value]]
