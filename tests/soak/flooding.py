"""A flood of forged deliveries on raw connections, while real ones go on and their latency is taken."""

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass, field

import httpx

from tests.soak.pace import until
from tests.support.failing_database import Failing

CONNECTIONS = 8
PIPELINED = 50


@dataclass
class Flood:
    """What was sent in how many seconds, and how long real deliveries took meanwhile."""

    forged: int = 0
    seconds: float = 0.0
    real: list[float] = field(default_factory=list)
    refused: int = 0
    """Real deliveries that were not answered 200."""

    @property
    def rate(self) -> float:
        """Forged deliveries answered per second."""
        return self.forged / self.seconds if self.seconds else 0.0

    def percentile(self, share: float) -> float:
        """Of the real ones, in milliseconds."""
        ordered = sorted(self.real)
        return ordered[min(int(len(ordered) * share), len(ordered) - 1)] * 1000 if ordered else float("nan")


async def flood(service: Failing, *, seconds: float, rate: float) -> Flood:
    """Send at most `rate` forged deliveries a second for so long; fewer where this machine can't."""
    result, started, over = Flood(), time.monotonic(), asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, over.set)
    port = service.replicas.ports[0]
    senders = [_forge(result, port, over, rate=rate / CONNECTIONS) for _ in range(CONNECTIONS)]
    await asyncio.gather(_deliver(result, service, over), *senders)
    result.seconds = time.monotonic() - started
    return result


async def _deliver(result: Flood, service: Failing, over: asyncio.Event) -> None:
    while not over.is_set():
        started = time.perf_counter()
        with suppress(httpx.TransportError):
            result.refused += (await service.deliver()).status_code != 200
        result.real.append(time.perf_counter() - started)
        await until(over, within=0.02)


async def _forge(result: Flood, port: int, over: asyncio.Event, *, rate: float) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = b'{"id":"evt_forged","type":"generation.succeeded","data":{"id":"task_1","status":"succeeded"}}'
    fields = ("Host: r", f"Content-Length: {len(body)}", f"Rivya-Signature: t=1,v1={'0' * 64}", "", "")
    head = "\r\n".join(("POST /rivya/webhook HTTP/1.1", *fields))
    request, started, sent = head.encode() + body, time.monotonic(), 0
    while not over.is_set():
        ahead = sent / rate - (time.monotonic() - started)
        if ahead > 0:
            await until(over, within=ahead)
        writer.write(request * PIPELINED)
        for _ in range(PIPELINED):
            answer = await reader.readuntil(b"\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 401"), answer
            length = int(answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
        sent += PIPELINED
        result.forged += PIPELINED
    writer.close()
