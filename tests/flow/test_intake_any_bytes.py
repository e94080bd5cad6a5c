"""Any bytes in any header or body: never a 5xx; signed ones are kept, unsigned ones are refused."""

import asyncio

import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.ledger.tables import deliveries
from tests.support.intake_harness import open_intake

_values = st.binary(max_size=120).map(lambda raw: raw.replace(b"\r", b"").replace(b"\n", b"").replace(b"\x00", b""))
_names = st.sampled_from(
    [b"rivya-signature", b"content-type", b"content-encoding", b"webhook-id", b"x-anything", b"content-length"]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(max_size=3000), headers=st.lists(st.tuples(_names, _values), max_size=6))
def test_unsigned_bytes_are_a_4xx(sqlite_url: str, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    async def run() -> httpx.Response:
        async with open_intake(sqlite_url) as intake:
            request = intake.client.build_request("POST", "/rivya/webhook", content=body)
            request.headers = httpx.Headers([(b"host", b"receiver"), *headers])
            return await intake.client.send(request)

    assert 400 <= asyncio.run(run()).status_code < 500


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.binary(min_size=1, max_size=3000) | st.text(min_size=1).map(lambda text: text.encode("utf-8", "replace"))
)
def test_signed_bytes_are_kept_whatever_they_are(database_url: str, body: bytes) -> None:
    async def run() -> tuple[int, list[bytes]]:
        async with open_intake(database_url) as intake:
            answer = await intake.deliver(body)
            return answer.status_code, [row["body"] for row in await intake.room.rows(deliveries)]

    status, bodies = asyncio.run(run())
    assert status == 200
    assert body in bodies
