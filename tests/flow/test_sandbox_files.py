"""The sandbox accepts files by their content, within the documented limits."""

import hashlib
from typing import Any

import httpx
import pytest

from app.sandbox.accounts import SCOPES, Key
from app.sandbox.faults import ApiFault
from tests.support.sandbox_harness import World, world

PNG = b"\x89PNG\r\n\x1a\n" + b"\r\n--pixels"
MP3 = b"ID3" + bytes(20)
MEGABYTE = 1024 * 1024


async def upload(w: World, content: bytes = PNG, *, name: str = "fox.png", **fields: str) -> httpx.Response:
    return await w.client.post("/api/v1/files", data={"kind": "image", **fields}, files={"file": (name, content)})


def code_of(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


async def test_an_upload_is_answered_with_the_documented_members_and_can_be_read_again() -> None:
    async with world() as w:
        answer = await upload(w, client_request_id="mine")
        file: dict[str, Any] = answer.json()
        assert answer.status_code == 200
        assert file["file_id"].startswith("file_")
        assert file["url"].startswith("https://")
        assert file["duration_token"] is None
        assert (file["mime_type"], file["size_bytes"]) == ("image/png", len(PNG))
        assert (await w.client.get(f"/api/v1/files/{file['file_id']}")).json() == file
        [stored] = w.sandbox.state()["files"]
        assert stored["sha256"] == hashlib.sha256(PNG).hexdigest()
        assert stored["client_request_id"] == "mine"


async def test_sound_and_moving_pictures_get_a_duration_token() -> None:
    async with world() as w:
        assert (await upload(w, MP3, kind="audio")).json()["duration_token"]


@pytest.mark.parametrize(
    ("content", "kind"),
    [(MP3, "image"), (PNG, "video"), (b"just text", "image"), (b"", "audio"), (PNG, "document")],
)
async def test_a_file_that_is_not_of_its_kind_is_refused(content: bytes, kind: str) -> None:
    async with world() as w:
        assert code_of(await upload(w, content, kind=kind)) == (400, "validation_failed")
        assert w.sandbox.state()["files"] == []


@pytest.mark.parametrize(("kind", "begin"), [("image", PNG), ("audio", MP3)])
async def test_a_file_above_the_limit_of_its_kind_is_too_large(kind: str, begin: bytes) -> None:
    async with world() as w:
        most = 10 * MEGABYTE
        assert (await upload(w, begin.ljust(most), kind=kind)).status_code == 200
        assert code_of(await upload(w, begin.ljust(most + 1), kind=kind)) == (413, "payload_too_large")


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b"{}"),
        ("multipart/form-data", b""),
        ("multipart/form-data; boundary=b", b"--b\r\n"),
        ("multipart/form-data; boundary=b", b"--b\r\n\r\n\r\n--b--"),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="kind"\r\n\r\nimage\r\n--b--',
        ),
    ],
)
async def test_what_is_no_form_with_a_file_is_refused(content_type: str, body: bytes) -> None:
    async with world() as w:
        answer = await w.client.post("/api/v1/files", content=body, headers={"Content-Type": content_type})
        assert code_of(answer) == (400, "validation_failed")


async def test_a_trace_id_that_is_too_long_is_refused() -> None:
    async with world() as w:
        assert code_of(await upload(w, client_request_id="x" * 129)) == (400, "validation_failed")


async def test_files_of_another_account_are_not_found() -> None:
    async with world() as w:
        file_id = (await upload(w)).json()["file_id"]
        w.sandbox.keys.add(Key("rvya_sk_theirs", account="theirs"))
        answer = await w.client.get(f"/api/v1/files/{file_id}", headers={"Authorization": "Bearer rvya_sk_theirs"})
        assert code_of(answer) == (404, "not_found")


@pytest.mark.parametrize("scope", ["files:create", "files:read"])
async def test_a_key_without_the_scope_is_denied(scope: str) -> None:
    async with world() as w:
        rest = tuple(other for other in SCOPES if other != scope)
        w.sandbox.keys.add(Key("rvya_sk_rest", scopes=rest))
        w.client.headers["Authorization"] = "Bearer rvya_sk_rest"
        answer = await upload(w) if scope == "files:create" else await w.client.get("/api/v1/files/file_x")
        assert code_of(answer) == (403, "api_scope_denied")


async def test_an_upload_can_be_taken_and_its_answer_lost() -> None:
    async with world() as w:
        w.sandbox.faults.api = [ApiFault("files.create", connection="hang_up", when="after", times=1)]
        with pytest.raises(httpx.RemoteProtocolError):
            await upload(w)
        assert len(w.sandbox.state()["files"]) == 1
