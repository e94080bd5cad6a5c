"""The command calls a receiver, or whatever speaks Rivya's API: tables for people, JSON for programs, exit statuses."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app.cli import cli
from app.cli.client import watch
from app.cli.client.http import calling
from app.sandbox.faults import ApiFault, StreamFault
from app.sandbox.server import serve_sandbox
from app.sandbox.settings import Dialect
from app.sandbox.state import Sandbox
from tests.support.commands import Ended, command
from tests.support.receivers import API_KEY

PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)
QUICK = '{"sandbox": {"seconds": 0.1}}'
FAILS = '{"sandbox": {"seconds": 0.1, "fail": true}}'
OPEN = '{"sandbox": {"seconds": 3600}}'
"""Until the test settles it."""


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_INTERVAL", 0.05)


@dataclass
class Desk:
    """A command line that calls a sandbox; in this process, since each of its own costs a second or two."""

    rivya: Sandbox
    url: str

    async def say(self, *words: str, **variables: str) -> Ended:
        settings = {"RECEIVER_URL": self.url, "RECEIVER_TOKEN": API_KEY, **variables}
        result = await asyncio.to_thread(CliRunner().invoke, cli, words, env=settings)
        return Ended(result.exit_code, result.stdout, result.stderr)

    async def say_json(self, *words: str) -> dict[str, Any]:
        """What is said with --json, after checking that it is the only thing on standard output."""
        ended = await self.say(*words, "--json")
        assert ended.status == 0, ended.errors
        [line] = ended.output.splitlines()
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def settle_once_read(self) -> None:
        """Let the only generation succeed as soon as somebody has read that it is open."""
        async with asyncio.timeout(20):
            while not any(call.status for call in self.rivya.calls.of("generations.get")):
                await asyncio.sleep(0)
        [generation_id] = self.rivya.generations.by_id
        await self.rivya.settle(generation_id)


@asynccontextmanager
async def a_desk() -> AsyncIterator[Desk]:
    async with serve_sandbox() as served:
        yield Desk(served.sandbox, served.base_url)


async def test_the_installed_command_ends_with_the_exit_statuses_that_it_promises(tmp_path: Path) -> None:
    async with a_desk() as desk:
        settings = {"RECEIVER_URL": desk.url, "RECEIVER_TOKEN": API_KEY}
        create = "generations create fox --model z-image --watch"
        all_ended = await asyncio.gather(
            command(create, settings, tmp_path),
            command(f'{create} --params {{"sandbox":{{"fail":true}}}}', settings, tmp_path),
            command(f"{create} --params fast", settings, tmp_path),
        )
    assert [ended.status for ended in all_ended] == [0, 1, 2]
    assert [ended.errors.count("Traceback") for ended in all_ended] == [0, 0, 0]


async def test_models_and_credits_are_a_table_for_people_and_rivyas_json_for_programs() -> None:
    async with a_desk() as desk:
        table, models = await desk.say("models"), await desk.say_json("models")
        left, in_json = await desk.say("credits"), await desk.say_json("credits")
    assert table.output.splitlines()[0].split() == ["MODEL", "NAME", "CATEGORY", "CREDITS", "STATUS"]
    assert re.search(r"^z-image +Z-Image +image +1 +available$", table.output, re.MULTILINE)
    assert "z-image" in {model["id"] for model in models["data"]}
    assert (left.output, in_json) == ("100000\n", {"current_credits": 100_000})


async def test_a_watched_generation_ends_with_its_outcome_as_exit_status() -> None:
    create = ("generations", "create", "a red fox", "--model", "z-image", "--watch", "--params")
    async with a_desk() as desk:
        good, _ = await asyncio.gather(desk.say(*create, OPEN), desk.settle_once_read())
        bad = await desk.say(*create, FAILS, "--json")
        [created, _] = desk.rivya.generations.by_id.values()
        assert created.charge.idempotency_key is not None
    assert (good.status, bad.status) == (0, 1)
    assert re.search(r"^status +succeeded$", good.output, re.MULTILINE)
    assert re.search(r"^task_\w+: queued$", good.errors, re.MULTILINE), "without a terminal, a line for each change"
    assert json.loads(bad.output)["error"]["code"] == "generation_failed"


async def test_get_shows_what_is_and_watch_waits_for_what_will_be() -> None:
    async with a_desk() as desk:
        words = (
            "generations",
            "create",
            "a fox",
            "--model",
            "z-image",
            "--params",
            FAILS,
            "--client-request-id",
            "o-1",
        )
        created = await desk.say_json(*words)
        watched = await desk.say("generations", "watch", created["id"])
        shown = await desk.say("generations", "get", created["id"])
    assert watched.status == 1
    assert watched.output == shown.output
    assert re.search(r"^error +generation_failed: ", shown.output, re.MULTILINE)
    assert shown.status == 0, "it was read, whatever became of it"


async def test_a_wait_that_is_over_is_a_failure_that_says_how_it_stands() -> None:
    async with a_desk() as desk:
        created = await desk.say_json("generations", "create", "--model", "sandbox-video-long")
        ended = await desk.say("generations", "watch", created["id"], "--timeout", "0", "--json")
    assert ended.status == 1
    assert json.loads(ended.output)["error"]["code"] == "still_open"
    assert "is queued after 0 s" in ended.errors


async def test_watching_goes_on_when_rivya_is_busy_for_a_moment() -> None:
    async with a_desk() as desk:
        created = await desk.say_json("generations", "create", "--model", "z-image", "--params", QUICK)
        desk.rivya.faults.api = [ApiFault("generations.get", times=1, status=503, retry_after=1)]
        ended = await desk.say("generations", "watch", created["id"])
    assert ended.status == 0
    assert "public_api_disabled" in ended.errors
    assert "trying again" in ended.errors


async def test_watching_is_given_up_when_no_answer_comes_for_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_MAX_OUTAGE", 0)
    async with a_desk() as desk:
        desk.rivya.faults.api = [ApiFault("generations.get", status=503)]
        ended = await desk.say("generations", "watch", "task_1")
    assert ended.status == 1
    assert ended.errors.startswith("failed: public_api_disabled")


async def test_watching_goes_on_when_the_receiver_is_gone_for_a_moment() -> None:
    shown: list[str] = []
    settling: list[asyncio.Task[None]] = []

    def interrupt(text: str) -> None:
        """Have the next look cut off, as soon as the first is shown, and the one after it find the outcome."""
        shown.append(text)
        if len(shown) == 1:
            desk.rivya.faults.api = [ApiFault("generations.get", times=1, connection="reset")]
        else:
            settling.append(asyncio.create_task(desk.rivya.settle(created["id"])))

    async with a_desk() as desk, calling(desk.url, API_KEY) as receiver:
        created = await receiver.post("generations", body={"model": "z-image", "params": json.loads(OPEN)}, key="key-1")
        outcome = await watch.wait_for_outcome(receiver, created["id"], interrupt)
        await asyncio.gather(*settling)
    assert outcome["status"] == "succeeded"
    assert "trying again" in shown[1]


async def test_watching_where_nobody_answers_at_all_fails_at_once() -> None:
    async with a_desk() as desk:
        ended = await desk.say("generations", "watch", "task_1", RECEIVER_URL="http://127.0.0.1:1")
    assert (ended.status, ended.errors.count("trying again")) == (1, 0)


async def test_a_create_without_an_answer_says_how_to_repeat_it_and_pay_once() -> None:
    create = ("generations", "create", "a fox", "--model", "z-image")
    async with a_desk() as desk:
        desk.rivya.faults.api = [ApiFault("generations.create", times=1, when="after", connection="hang_up")]
        cut_off = await desk.say(*create)
        assert cut_off.status == 1
        [key] = re.findall(r"--idempotency-key (\S+)", cut_off.errors)
        again = await desk.say(*create, "--idempotency-key", key)
        assert again.status == 0
        assert len(desk.rivya.generations.by_id) == 1


async def test_an_uploaded_file_is_shown_with_the_id_that_a_chat_attaches(tmp_path: Path) -> None:
    (tmp_path / "fox.png").write_bytes(PNG)
    async with a_desk() as desk:
        shown = await desk.say("files", "upload", "fox.png", "--client-request-id", "order-1")
        [file] = desk.rivya.files.by_id.values()
        ended = await desk.say("chat", "what is it?", "--attach", file.id, "--model", "gpt-5-2-chat")
    assert (file.kind, file.name, file.size, file.client_request_id) == ("image", "fox.png", len(PNG), "order-1")
    assert re.search(rf"^file_id +{file.id}$", shown.output, re.MULTILINE)
    assert "with 1 attached" in ended.output


async def test_a_chat_goes_on_in_its_session_with_its_model() -> None:
    async with a_desk() as desk:
        first = await desk.say_json("chat", "hello", "--model", "sandbox-chat")
        session = first["session_id"]
        again = await desk.say("chat", "and again", "--session", session)
        spoken = await desk.say("chat", "once more", "--session", session, "--stream")
    assert again.output == "Turn 2: you said “and again”, and I have nothing to add.\n"
    assert spoken.output == "Turn 3: you said “once more”, and I have nothing to add.\n"
    assert again.errors == spoken.errors == f"session: {session}\n"


@pytest.mark.parametrize("dialect", ["named", "chunks", "crlf"])
async def test_a_stream_is_spoken_once_in_every_dialect(dialect: Dialect) -> None:
    async with a_desk() as desk:
        desk.rivya.settings.stream_dialect = dialect
        spoken = await desk.say("chat", "hello", "--stream")
    assert (spoken.status, spoken.output) == (0, "Turn 1: you said “hello”, and I have nothing to add.\n")
    assert spoken.errors.startswith("session: chat_")


async def test_a_stream_for_programs_is_an_event_a_line() -> None:
    async with a_desk() as desk:
        spoken = await desk.say("chat", "hello", "--stream", "--json")
    events = [json.loads(line) for line in spoken.output.splitlines()]
    assert [events[0]["event"], events[-1]["event"]] == ["message.created", "message.completed"]
    assert events[1]["data"] == {"content": "Turn"}


async def test_a_stream_that_breaks_off_is_a_failure() -> None:
    async with a_desk() as desk:
        desk.rivya.faults.stream = StreamFault(after=3, connection="reset")
        ended = await desk.say("chat", "hello", "--stream")
    assert ended.status == 1
    assert ended.output.startswith("Turn 1:")
    assert "the answer did not come, or not whole" in ended.errors


async def test_a_refusal_is_shown_with_its_code_and_kept_as_json_for_programs() -> None:
    async with a_desk() as desk:
        person = await desk.say("generations", "create", "--model", "no-such-model")
        program = await desk.say("generations", "get", "nobody", "--json")
        stream = await desk.say("chat", "hello", "--stream", "--model", "no-such-model")
    assert (person.status, program.status, stream.status) == (1, 1, 1)
    assert person.errors.startswith("failed: validation_failed: ")
    assert json.loads(program.output)["error"]["code"] == "not_found"
    assert stream.errors.startswith("failed: chat_model_not_supported: ")


@pytest.mark.parametrize(
    ("words", "variables", "message"),
    [
        (("credits",), {"RECEIVER_TOKEN": ""}, "RECEIVER_TOKEN: is not set"),
        (("credits",), {"RECEIVER_TOKEN": "two words"}, "RECEIVER_TOKEN: must be plain ASCII"),
        (("credits",), {"RECEIVER_URL": "receiver"}, "RECEIVER_URL: is not a URL"),
        (("generations", "create", "--model", "m", "--params", "[]"), {}, "--params: must be a JSON object"),
        (("generations", "create", "a fox"), {}, "--model"),
        (("generations", "list", "--limit", "0"), {}, "--limit"),
        (("files", "upload", "what.xyz"), {}, "--kind"),
        (("files", "upload", "nowhere.png"), {}, "nowhere.png"),
        (("chat",), {}, "message"),
    ],
)
async def test_what_makes_no_sense_is_refused_before_anything_is_called(
    tmp_path: Path, words: tuple[str, ...], variables: dict[str, str], message: str
) -> None:
    (tmp_path / "what.xyz").write_bytes(b"x")
    async with a_desk() as desk:
        ended = await desk.say(*words, **variables)
        assert not desk.rivya.calls.counts
    assert ended.status == 2
    assert message in re.sub(r"[\s│]+", " ", ended.errors)
    assert ended.output == ""


async def test_nobody_there_is_a_failure_that_names_the_variable() -> None:
    async with a_desk() as desk:
        ended = await desk.say("credits", "--json", RECEIVER_URL="http://127.0.0.1:1")
    assert ended.status == 1
    assert "nobody answers at RECEIVER_URL, http://127.0.0.1:1" in ended.errors
    assert json.loads(ended.output)["error"]["code"] == "receiver_unreachable"
