"""The other words of the command: `run` shows the main job or does it, `sandbox` is a Rivya, `keys generate` a key."""

import asyncio
import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from app.core.settings import parse_keys
from app.sandbox.server import serve_sandbox
from tests.support.commands import command, wait_for
from tests.support.documents import blocks, section
from tests.support.ports import free_port
from tests.support.receiver_process import ReceiverProcess
from tests.support.receivers import API_KEY, environment

STEP = re.compile(r"^[\d:.]+  (submit|webhook|poll) +(\S+) → (\w+) +(task_\w+) +(.+)$", re.MULTILINE)
NAMES = {
    "an image",
    "another image",
    "a video that takes longer",
    "an image that fails",
    "an image whose callback is dropped",
    "an image delivered twice and out of order",
}


@contextmanager
def started(words: str, settings: dict[str, str], directory: Path) -> Iterator[ReceiverProcess]:
    process = ReceiverProcess(settings, directory, command=words)
    process.spawn()
    try:
        yield process
    finally:
        process.kill()


async def test_without_an_api_key_the_main_job_is_shown_until_all_is_settled_and_then_served(tmp_path: Path) -> None:
    with started("run", {}, tmp_path) as process:
        written = await asyncio.to_thread(wait_for, process, "in a browser")
        assert written.startswith("RIVYA_API_KEY is not set: this is a demonstration")
        steps = STEP.findall(written)
        ends = {name: (to, source) for source, _, to, _, name in steps if to in ("succeeded", "failed")}
        assert set(ends) == NAMES
        assert {name for name, (to, _) in ends.items() if to == "failed"} == {"an image that fails"}
        assert ends["an image whose callback is dropped"] == ("succeeded", "poll")
        assert {source for source, *_ in steps} == {"submit", "webhook", "poll"}
        assert {name for source, before, _, _, name in steps if (source, before) == ("submit", "(new)")} == NAMES
        assert re.search(
            r"^[\d:.]+  notify   generation\.failed +task_\w+  to http:\S+, signed$", written, re.MULTILINE
        )
        assert "all settled" in written
        assert re.search(r"^5 deliveries recorded, .* came 2 times", written, re.MULTILINE)
        shown_in_the_readme(written)
        await the_printed_lines_work(written)
        os.kill(process.pid, signal.SIGINT)
        assert await asyncio.to_thread(process.exit_status) == 0
        assert "Traceback" not in process.log()


def shown_in_the_readme(written: str) -> None:
    """README shows what is printed, shortened; times, ports and ids differ."""
    [shown, *_] = blocks(section("README.md", "## Try it"), "")
    assert {plain(line) for line in shown.splitlines()} <= {plain(line) for line in written.splitlines()}


def plain(line: str) -> str:
    return re.sub(r"\d+", "0", re.sub(r"(task|evt)_\w+", "…", line)).strip()


async def the_printed_lines_work(written: str) -> None:
    [header] = set(re.findall(r"-H '(Authorization: Bearer \S+)'", written))
    [url] = set(re.findall(r"(http://[\d.:]+)/docs", written))
    name, _, value = header.partition(": ")
    async with httpx.AsyncClient(base_url=url, headers={name: value}, timeout=60) as client:
        listed = (await client.get("/api/v1/generations")).json()["data"]
        assert {generation["tracking"]["state"] for generation in listed} == {"settled"}
        assert len(listed) == len(NAMES)
        for path in ("/api/v1/deliveries", "/api/v1/endpoint", "/readyz", "/metrics", "/docs"):
            assert (await client.get(path)).status_code == 200
    assert f"{url}/console#token={value.removeprefix('Bearer ')} " in written


@pytest.mark.parametrize("stage", ["(database", "submitting", "→"])
async def test_a_demonstration_told_to_stop_in_the_middle_stops_and_exits_0(tmp_path: Path, stage: str) -> None:
    with started("run", {}, tmp_path) as process:
        await asyncio.to_thread(wait_for, process, stage)
        assert await asyncio.to_thread(process.terminate) == 0
        assert "Traceback" not in process.log()


async def test_a_demonstration_serves_at_the_port_asked_for_and_says_so_where_that_is_taken(tmp_path: Path) -> None:
    port = free_port()
    settings = {"RECEIVER_PORT": str(port)}
    with started("run", settings, tmp_path) as process:
        await asyncio.to_thread(wait_for, process, f"http://127.0.0.1:{port} ")
        ended = await command("run", settings, tmp_path)
        assert ended.status == 1
        assert f"RECEIVER_PORT: got 127.0.0.1 and {port}; can't listen there" in ended.errors
        assert "Traceback" not in ended.errors
        assert await asyncio.to_thread(process.terminate) == 0


async def test_a_second_demonstration_leaves_the_folder_of_the_first_alone(tmp_path: Path) -> None:
    with started("run", {}, tmp_path) as process:
        await asyncio.to_thread(wait_for, process, "submitting")
        for words in ("run", "run --keep"):
            ended = await command(words, {}, tmp_path)
            assert ended.status == 1
            assert "another demonstration runs in " in ended.errors
            assert "Traceback" not in ended.errors
        await asyncio.to_thread(wait_for, process, "all settled")
        assert await asyncio.to_thread(process.terminate) == 0


async def test_a_demonstration_goes_on_with_its_record_after_a_power_cut_if_asked_to(tmp_path: Path) -> None:
    for words, shown in (("run", 1), ("run --keep", 2), ("run", 1)):
        with started(words, {}, tmp_path) as process:
            written = await asyncio.to_thread(wait_for, process, "in a browser")
            ends = {name: source for source, _, to, _, name in STEP.findall(written) if to in ("succeeded", "failed")}
            assert (set(ends), ends["an image"]) == (NAMES, "webhook")
            [token] = set(re.findall(r"Bearer (\S+?)'", written))
            [url] = set(re.findall(r"(http://[\d.:]+)/docs", written))
            headers = {"Authorization": f"Bearer {token}"}
            async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as client:
                listed = (await client.get("/api/v1/generations")).json()["data"]
                assert (await client.get("/api/v1/callback-secret")).is_success
            assert len(listed) == shown * len(NAMES)
            process.kill()  # as a power cut does; what the process held in the database expires


async def test_with_an_api_key_run_serves_for_real(tmp_path: Path, sqlite_url: str) -> None:
    async with serve_sandbox() as rivya:
        port = free_port()
        process = ReceiverProcess(environment(rivya.base_url, sqlite_url, port), tmp_path, command="run", port=port)
        try:
            await asyncio.to_thread(process.start)
            assert await asyncio.to_thread(process.terminate) == 0
        finally:
            process.kill()
    assert "demonstration" not in process.log()


async def test_a_generated_key_is_one_that_the_service_takes(tmp_path: Path) -> None:
    ended = await command("keys generate", {}, tmp_path)
    assert ended.status == 0
    [key] = ended.output.splitlines()
    assert len(parse_keys(key)) == 1


async def test_a_sandbox_says_where_it_is_answers_there_and_stops_when_told_to(tmp_path: Path) -> None:
    port = free_port()
    with started(f"sandbox --port {port}", {}, tmp_path) as process:
        url = f"http://127.0.0.1:{port}"
        written = await asyncio.to_thread(wait_for, process, "/sandbox/state")
        assert f"RIVYA_BASE_URL={url} RIVYA_API_KEY={API_KEY}\n" in written
        headers = {"Authorization": f"Bearer {API_KEY}"}
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as client:
            assert (await client.get("/api/v1/models")).json()["data"]
            assert (await client.get("/api/v1/webhooks")).status_code == 200
        assert await asyncio.to_thread(process.terminate) == 0


async def test_a_sandbox_whose_port_is_taken_says_so(tmp_path: Path) -> None:
    async with serve_sandbox() as other:
        port = other.base_url.rsplit(":", 1)[1]
        ended = await command(f"sandbox --port {port}", {}, tmp_path)
    assert ended.status == 1
    assert f"got 127.0.0.1 and {port}; can't listen there" in ended.errors
