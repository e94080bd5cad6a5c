"""Text that no database can hold reaches every text column there is, and none of them, nor any reader, breaks."""

import json

import httpx
import pytest

from tests.support.intake_harness import SECRET
from tests.support.unstorable_text_harness import MARK, UnstorableTextHarness, text_columns, unstorable_room

OURS = "made by us, or one of a closed list of words"
DELIVERY, HEADERS, REFUSED = "a delivery's body", "a delivery's headers", "a refused delivery's headers"
CREATE, TRACK, CREATED, POLL = "a create", "a track", "Rivya's answer to a create", "Rivya's refusal of a poll"
REGISTER, SETTING = "Rivya's answer to a registration", "a setting"
WEBHOOK = "a program's webhook"

REACHED = {
    "deliveries.event_id": DELIVERY, "deliveries.event_type": DELIVERY, "deliveries.generation_id": DELIVERY,
    "deliveries.endpoint_id": OURS, "deliveries.headers": HEADERS, "deliveries.outcome": OURS,
    "generations.id": DELIVERY, "generations.status": OURS, "generations.model": DELIVERY,
    "generations.rivya_object": DELIVERY, "generations.client_request_id": TRACK, "generations.metadata": TRACK,
    "generations.submitted_by": SETTING, "generations.settled_by": OURS, "generations.metadata_by": SETTING,
    "generations.metadata_changes": OURS,
    "polls.generation_id": DELIVERY, "polls.model": DELIVERY, "polls.source": OURS, "polls.token": SETTING,
    "polls.state": OURS, "polls.last_error": POLL,
    "transitions.generation_id": DELIVERY, "transitions.event_id": DELIVERY, "transitions.from_status": OURS,
    "transitions.to_status": OURS, "transitions.source": OURS,
    "rejections.id": OURS, "rejections.reason": OURS, "rejections.endpoint_id": OURS,
    "rejections.header_names": REFUSED, "rejections.remote_address": OURS, "rejections.digest": OURS,
    "submissions.id": OURS, "submissions.idempotency_key": CREATE, "submissions.request_hash": OURS,
    "submissions.state": OURS, "submissions.generation_id": CREATED, "submissions.submitted_by": SETTING,
    "submissions.last_error": CREATED, "submissions.callback_url": OURS, "submissions.traceparent": OURS,
    "generations.tracked_by": SETTING, "token_charges.id": OURS, "token_charges.token": SETTING,
    "token_charges.kind": OURS, "token_charges.day": OURS, "token_charges.generation_id": CREATED,
    "token_rates.token": SETTING, "token_spending.token": SETTING, "token_spending.period": OURS,
    "token_secrets.name": SETTING, "tokens.name": SETTING, "tokens.role": OURS, "tokens.models": SETTING,
    "tokens.created_by": SETTING, "audit.id": OURS, "audit.actor": SETTING, "audit.action": OURS,
    "audit.target": SETTING, "audit.detail": OURS, "audit.remote_address": OURS, "audit.request_id": OURS,
    "usage_changes.model": DELIVERY, "usage_changes.submitted_by": SETTING,
    "usage_hours.model": DELIVERY, "usage_hours.submitted_by": SETTING,
    "poll_budget.name": OURS, "poll_budget.stopped_reason": POLL, "poll_budget.stopped_key": OURS,
    "feed.name": OURS, "feed.cursor_key": OURS,
    "leases.name": OURS, "leases.holder": OURS, "replicas.id": OURS, "replicas.version": OURS,
    "activity_minutes.what": OURS, "alarm_states.alarm": OURS,
    "endpoints.id": OURS, "endpoints.path_key": OURS, "endpoints.url": OURS, "endpoints.rivya_id": REGISTER,
    "endpoints.state": OURS, "endpoints.scheme": HEADERS, "endpoints.proven_by": DELIVERY,
    "endpoints.other_scheme": HEADERS, "endpoints.last_error": REGISTER,
    "endpoint_secrets.id": OURS, "endpoint_secrets.endpoint_id": OURS, "endpoint_secrets.sealed": OURS,
    "endpoint_history.endpoint_id": OURS, "endpoint_history.event": OURS, "endpoint_history.detail": DELIVERY,
    "subscriptions.id": OURS, "subscriptions.token": SETTING, "subscriptions.owner": SETTING,
    "subscriptions.name": WEBHOOK, "subscriptions.url": OURS, "subscriptions.event_types": OURS,
    "subscriptions.model": WEBHOOK, "subscriptions.submitted_by": WEBHOOK, "subscriptions.status": OURS,
    "subscriptions.secret": OURS, "subscriptions.secret_preview": OURS, "subscriptions.previous_secret": OURS,
    "callbacks.generation_id": DELIVERY, "callbacks.token": SETTING, "callbacks.url": OURS,
    "notification_dispatch.name": OURS, "notification_dispatch.cursor": OURS,
    "notifications.id": OURS, "notifications.queue": SETTING, "notifications.subscription_id": OURS,
    "notifications.callback_url": OURS, "notifications.token": SETTING, "notifications.event_id": DELIVERY,
    "notifications.event_type": OURS, "notifications.generation_id": DELIVERY, "notifications.error": OURS,
    "notifications.state": OURS, "notifications.attempt_log": WEBHOOK,
}  # fmt: skip
"""By which input each text column is reached."""
ELSEWHERE = {
    "generations.tracked_by": "tests/unit/test_settings.py refuses such names",
    "token_charges.token": "tests/unit/test_settings.py refuses such names",
    "token_charges.generation_id": "the value of `submissions.generation_id`",
    "token_rates.token": "tests/unit/test_settings.py refuses such names",
    "token_spending.token": "tests/unit/test_settings.py refuses such names",
    "token_secrets.name": "tests/flow/test_tokens.py refuses such names",
    "tokens.name": "tests/flow/test_tokens.py refuses such names",
    "tokens.models": "tests/flow/test_tokens.py refuses such names",
    "tokens.created_by": "tests/unit/test_settings.py refuses such names",
    "audit.actor": "tests/unit/test_settings.py refuses such names",
    "audit.target": "tests/flow/test_tokens.py refuses such names",
    "generations.metadata_by": "tests/unit/test_settings.py refuses such names",
    "polls.token": "tests/unit/test_settings.py refuses such names",
    "polls.generation_id": "the value of `generations.id`",
    "polls.model": "the value of `generations.model`",
    "generations.submitted_by": "tests/unit/test_settings.py refuses such names",
    "submissions.submitted_by": "tests/unit/test_settings.py refuses such names",
    "usage_changes.submitted_by": "tests/unit/test_settings.py refuses such names",
    "usage_hours.submitted_by": "tests/unit/test_settings.py refuses such names",
    "usage_hours.model": "summed from `usage_changes`, which has it from `generations`",
    "subscriptions.token": "tests/unit/test_settings.py refuses such names",
    "subscriptions.owner": "tests/unit/test_settings.py refuses such names",
    "subscriptions.name": "tests/flow/test_webhooks.py refuses such texts",
    "subscriptions.model": "tests/flow/test_webhooks.py refuses such texts",
    "subscriptions.submitted_by": "tests/flow/test_webhooks.py refuses such texts",
    "callbacks.generation_id": "the value of `generations.id`",
    "callbacks.token": "tests/unit/test_settings.py refuses such names",
    "notifications.queue": "tests/unit/test_settings.py refuses such names",
    "notifications.token": "tests/unit/test_settings.py refuses such names",
    "notifications.event_id": "the value of `transitions.event_id`, where it is fit for a header",
    "notifications.generation_id": "the value of `generations.id`",
    "notifications.attempt_log": "tests/flow/test_notification_retries.py has an answer with such text",
    "endpoints.other_scheme": "needs a path of ours; what is written is what `endpoints.scheme` gets",
}

# As JSON writes them, without the quotes; the last are no strings, and close the one they are put into.
HOSTILE = (
    r"\u0000", r"a\u0000b", r"\ud800", r"\udfff\ud800", "\u202e", r"\ufffe\uffff", "x" * 100_000, r"\u0000" * 300, "",
    " ", "\\u007f", '","a":1e400,"b":"', '","n":' + "9" * 5000 + ',"b":"', '","a":-1e-400,"b":"',
    '","a":' + "[" * 300 + "]" * 300 + ',"b":"', '","a":' + '{"\\u0000":' * 260 + "1" + "}" * 260 + ',"b":"',
    '","id":"\\u0000","b":"',
)  # fmt: skip


def test_the_table_names_every_text_column_there_is() -> None:
    assert set(REACHED) == text_columns()


async def _everything(room: UnstorableTextHarness, text: str, number: int) -> None:
    """Have this text come in by every way there is."""
    room.repeated, room.status = text, "200 OK"
    event = f'{{"id":"evt{text}","type":"{text}","data":{{"id":"{text}","status":"succeeded","model":"{text}"}}}}'
    for body in (event, event.replace('"evt', '"evu', 1).replace(f'"type":"{text}",', "")):
        answer = await room.deliver(body.encode(), **{f"{MARK}-id": _in_header(text), "user-agent": _in_header(text)})
        assert answer.status_code == 200, answer.text
    refused = [(b"x-" + _in_header(text).encode("ascii", "replace"), b"a"), (b"x\x00", b"\x00")]
    assert (await room.client.post("/rivya/webhook", content=b"{}", headers=refused)).status_code == 401
    track = f'{{"model":"{text}","client_request_id":"{text}","metadata":{{"{text}":"{text}"}}}}'.encode()
    answers = [await room.client.put(f"/api/v1/generations/tracked-{number}", content=track)]
    for member in ("model", "client_request_id", "metadata"):
        body = f'{{"{member}":"{text}"}}' if member != "metadata" else f'{{"metadata":{{"a":"{text}"}}}}'
        answers.append(await room.client.put(f"/api/v1/generations/tracked-{number}", content=body.encode()))
    answers += [await _created(room, text, f"{number}-said"), await _created(room, text, _in_header(text) or "none")]
    room.status = "400 Bad Request"
    answers.append(await _created(room, text, f"{number}-refused"))
    await room.polled()
    room.status = "401 Unauthorized"
    await room.polled()
    answers += [await room.client.get(f"/api/v1/{path}") for path in ("generations", "deliveries", "rejections")]
    assert not [answer.text for answer in answers if answer.status_code == 500]


async def _created(room: UnstorableTextHarness, text: str, key: str) -> httpx.Response:
    body = f'{{"model":"z-image","prompt":"{text}","client_request_id":"{text}"}}'.encode()
    return await room.client.post(
        "/api/v1/generations", content=body, headers=[(b"Idempotency-Key", key.encode("latin-1"))]
    )


def _in_header(text: str) -> str:
    """As a client that checks nothing puts it there."""
    return text.replace(r"\u0000", "\x00").encode("latin-1", "replace").decode("latin-1")[:3000]


async def test_each_column_is_reached_as_the_table_says_and_none_holds_what_it_can_not(
    monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    async with unstorable_room(monkeypatch, database_url, RIVYA_SIGNING_SECRET=SECRET) as room:
        body = f'{{"id":"{MARK}_first","type":"ping"}}'.encode()
        assert (await room.deliver(body)).status_code == 200
        await _everything(room, MARK, 0)
        await room.service.rejections.run_once()
        held = await room.rows()
        for column, way in REACHED.items():
            if way not in (OURS, REGISTER) and column not in ELSEWHERE:
                assert any(MARK in (value or "") for value in held[column]), f"{column} is not reached by {way}"
        for number, text in enumerate(HOSTILE, start=1):
            await _everything(room, text, number)
            await room.service.rejections.run_once()
        _are_clean(await room.rows())


async def test_what_rivya_says_of_an_endpoint_is_kept_or_not_but_breaks_nothing(
    monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    async with unstorable_room(monkeypatch, database_url) as room:
        for text in (MARK, *HOSTILE):
            for room.status in ("400 Bad Request", "200 OK"):
                room.repeated = text
                await room.registered()
                if text == MARK:
                    column = "endpoints.rivya_id" if room.status.startswith("200") else "endpoints.last_error"
                    assert any(MARK in (value or "") for value in (await room.rows())[column]), column
        assert (await room.client.get("/api/v1/endpoint/history")).status_code == 200
        _are_clean(await room.rows())


def _are_clean(held: dict[str, list[str | None]]) -> None:
    for column, values in held.items():
        for value in filter(None, values):
            assert "\x00" not in value, column
            value.encode()  # no lone surrogate
            if column in ("generations.rivya_object", "generations.metadata"):
                assert r"\u0000" not in json.dumps(json.loads(value)), column
