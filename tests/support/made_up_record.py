"""A record as a few weeks of work leave it, made up and the same each time; some of it hostile to whoever shows it."""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

import orjson
from sqlalchemy import insert, update

from app.core.models import Claim
from app.core.records import uuid7
from app.intake.rejections import rejections
from app.ledger.metrics import Activity
from app.ledger.models import Delivery, NextPoll, Outcome, Report, Source, Tracking
from app.ledger.recorder import Recorder
from app.ledger.tables import polls
from app.submission.models import State
from app.submission.store import submissions
from tests.support.ledger_harness import open_ledger
from tests.support.made_up_media import EXPIRED

HOSTILE: Final = """"><img src=hostile onerror="window.hostile=1"><script>window.hostile=1</script>{{7*7}}'--&amp;"""
"""Text that runs, loads or shows something where it is not escaped."""
HOSTILE_URLS: Final = ("javascript:window.hostile=1", "data:text/html,<script>window.hostile=1</script>")
HOSTILE_ID: Final = "task_<i>/../%2e?&'\"#"
FAILED_ID: Final = "task_failed0000000000000001"
NEWEST_ID: Final = "task_newest0000000000000001"
EXPIRED_ID: Final = "task_expired000000000000001"
VIDEO_ID: Final = "task_video00000000000000001"
AUDIO_ID: Final = "task_audio00000000000000001"
LOST_ID: Final = "task_lost000000000000000001"
OPEN_ID: Final = "task_open000000000000000001"

_MODELS: Final = (
    ("z-image", "png", 1),
    ("sandbox-image-pro", "png", 4),
    ("sandbox-video", "mp4", 20),
    ("sandbox-audio", "mp3", 5),
)
_PROMPTS: Final = (
    "A lighthouse above a stormy sea, oil on canvas",
    "A red fox in fresh snow, golden hour, 85 mm",
    "Product shot of a ceramic teapot on linen",
    "Isometric map of a small harbour town",
    "A train crossing a stone viaduct in autumn fog",
    "Paper-cut poster of a mountain observatory",
)
_TOKENS: Final = ("storefront", "studio", "newsletter")
_LONG: Final = timedelta(days=1)


@dataclass
class MadeUpRecord:
    """What is put into the tables, oldest first. The hours before `now` are the busiest."""

    now: datetime
    count: int = 90
    days: int = 14
    is_hostile: bool = True
    """With text that runs where it is not escaped."""
    submitted: list[dict[str, Any]] = field(default_factory=list)
    _random: random.Random = field(default_factory=lambda: random.Random(7))

    def reports(self) -> Iterator[Report]:
        """All reports in the order of their times."""
        reports = [report for number in range(self.count) for report in self._usual(number)]
        reports += self._named()
        if self.is_hostile:
            reports += [*self._hostile(), *self._odd_deliveries()]
        return iter(sorted(reports, key=lambda each: each.reported_at))

    def rejected(self) -> list[dict[str, Any]]:
        """Rows of `rejections`."""
        reasons = ["signature_mismatch"] * 9 + ["stale_timestamp"] * 4 + ["missing_signature"] * 2
        rows = []
        for number, reason in enumerate(reasons):
            at = self.now - timedelta(hours=5, minutes=7 * number)
            rows.append(
                {
                    "id": str(uuid7(at)),
                    "rejected_at": at,
                    "reason": reason,
                    "endpoint_id": None,
                    "size": 400 + 13 * number,
                    "header_names": f"content-type,user-agent,{HOSTILE if self.is_hostile else 'rivya-signature'}",
                    "remote_address": HOSTILE if self.is_hostile and number == 14 else f"203.0.113.{number}",
                    "digest": hashlib.sha256(str(number).encode()).hexdigest(),
                }
            )
        return rows

    def _usual(self, number: int) -> Iterator[Report]:
        age = timedelta(days=self.days) * (1 - number / self.count) ** 2 + timedelta(minutes=9)
        began = self.now - age + timedelta(seconds=self._random.randrange(300))
        model, ending, credits_used = self._random.choices(_MODELS, weights=(8, 3, 2, 1))[0]
        identity = f"task_{self._random.randbytes(12).hex()}"
        token = self._random.choices(_TOKENS, weights=(6, 3, 1))[0]
        prompt = self._random.choice(_PROMPTS)
        seconds = 2 + self._random.random() * (60 if ending == "mp4" else 8)
        outcome = self._random.choices(("webhook", "poll", "failed"), weights=(84, 9, 7))[0]
        url = f"https://media.example/{identity}.{ending}"
        yield self._submit(identity, model, at=began, token=token, prompt=prompt, credits_used=credits_used)
        ended = began + timedelta(seconds=seconds)
        status = "failed" if outcome == "failed" else "succeeded"
        object_ = self._object(identity, model, status, url=url, credits_used=credits_used, at=ended)
        if outcome == "poll":
            yield Report(source=Source.POLL, reported_at=ended + timedelta(seconds=64), claim=_claim(object_, ended))
        else:
            yield self._deliver(object_, ended, received=ended + timedelta(seconds=0.2 + self._random.random()))

    def _named(self) -> Iterator[Report]:
        """Those that tests name."""
        image = "png"
        for minutes, identity, model, ending, status in (
            (55, FAILED_ID, "z-image", image, "failed"),
            (40, EXPIRED_ID, "z-image", image, "succeeded"),
            (30, VIDEO_ID, "sandbox-video", "mp4", "succeeded"),
            (20, AUDIO_ID, "sandbox-audio", "mp3", "succeeded"),
            (6, NEWEST_ID, "z-image", image, "succeeded"),
        ):
            at = self.now - timedelta(minutes=minutes)
            name = f"{EXPIRED}-{identity}" if identity == EXPIRED_ID else identity
            url = f"https://media.example/{name}.{ending}"
            yield self._submit(identity, model, at=at, token="storefront", prompt=_PROMPTS[0], credits_used=1)
            processing = self._object(identity, model, "processing", url=url, credits_used=1, at=at)
            yield Report(
                source=Source.POLL,
                reported_at=at + timedelta(seconds=3),
                claim=_claim(processing, at + timedelta(seconds=2)),
                next_poll=NextPoll(self.now + _LONG, Tracking.WATCHING),
            )
            ended = at + timedelta(seconds=9)
            object_ = self._object(identity, model, status, url=url, credits_used=1, at=ended)
            yield self._deliver(object_, ended, received=ended + timedelta(seconds=0.6))
        for minutes, identity, tracking in (
            (4, OPEN_ID, Tracking.WATCHING),
            (3000, "task_stalled0000000000000001", Tracking.STALLED),
            (900, LOST_ID, Tracking.WATCHING),
        ):
            at = self.now - timedelta(minutes=minutes)
            yield self._submit(identity, "sandbox-video", at=at, token="studio", prompt=_PROMPTS[4], credits_used=20)
            object_ = self._object(identity, "sandbox-video", "processing", url="", credits_used=20, at=at)
            yield Report(
                source=Source.POLL,
                reported_at=at + timedelta(seconds=5),
                claim=_claim(object_, at),
                next_poll=NextPoll(self.now + _LONG, tracking),
            )

    def _hostile(self) -> Iterator[Report]:
        at = self.now - timedelta(minutes=15)
        for identity, urls, status in (
            (HOSTILE_ID, [f"https://media.example/{HOSTILE}.png"], "failed"),
            ("task_hostile000000000000001", list(HOSTILE_URLS), "succeeded"),
            ("task_hostile000000000000002", [f"https://media.example/{EXPIRED}?{HOSTILE}"], "succeeded"),
        ):
            yield self._submit(
                identity, HOSTILE, at=at, token="studio", prompt=HOSTILE, credits_used=1, metadata={HOSTILE: HOSTILE}
            )
            object_ = {
                **self._object(identity, HOSTILE, status, url=urls[0], credits_used=1, at=at),
                HOSTILE: HOSTILE,
                "result": {"primary_url": urls[0], "urls": urls} if status == "succeeded" else None,
                "error": {"code": HOSTILE, "message": HOSTILE} if status == "failed" else None,
            }
            yield self._deliver(object_, at + timedelta(seconds=5), received=at + timedelta(seconds=6), kind=HOSTILE)

    def _odd_deliveries(self) -> Iterator[Report]:
        """A delivery of each outcome that changes nothing."""
        for minutes, outcome, body in (
            (70, Outcome.TEST, b'{"type": "webhook.test"}'),
            (65, Outcome.UNKNOWN_TYPE, orjson.dumps({"type": HOSTILE})),
            (62, Outcome.UNREADABLE, b"\xff\xfe not JSON"),
        ):
            at = self.now - timedelta(minutes=minutes)
            delivery = Delivery(
                event_id=f"evt_{outcome}",
                event_type=HOSTILE if outcome is Outcome.UNKNOWN_TYPE else None,
                endpoint_id=None,
                received_at=at,
                body=body,
                headers={"user-agent": HOSTILE},
                stored_outcome=outcome,
            )
            yield Report(source=Source.WEBHOOK, reported_at=at, delivery=delivery)
        at = self.now - timedelta(minutes=50)
        for status in ("succeeded", "failed"):
            url = "https://media.example/contradicted.png"
            object_ = self._object(FAILED_ID, "z-image", status, url=url, credits_used=1, at=at)
            yield self._deliver(object_, at, received=at, event_id=f"evt_again_{status}")

    def _submit(
        self, identity: str, model: str, *, at: datetime, token: str, prompt: str, credits_used: int, **extra: Any
    ) -> Report:
        reference = HOSTILE[:100] if prompt == HOSTILE else f"order-{4000 + len(self.submitted)}"
        body = {"model": model, "prompt": prompt, "params": {"size": "1024x1024"}, "client_request_id": reference}
        object_ = self._object(identity, model, "queued", url="", credits_used=credits_used, at=at)
        created = str(uuid7(at))
        self.submitted.append(
            {
                "id": created,
                "idempotency_key": f"made-up-{created}",
                "request_hash": hashlib.sha256(created.encode()).hexdigest(),
                "request": orjson.dumps(body | extra),
                "state": State.ACCEPTED,
                "is_final": 1,
                "response_status": 200,
                "response": orjson.dumps(object_),
                "generation_id": identity,
                "submitted_by": token,
                "attempts": 1,
                "retries": 0,
                "sent_at": at,
                "created_at": at,
                "resolved_at": at,
            }
        )
        return Report(
            source=Source.SUBMIT,
            reported_at=at,
            claim=_claim(object_, at),
            client_request_id=reference,
            token=token,
            metadata=extra.get("metadata"),
            next_poll=NextPoll(self.now + _LONG, Tracking.WATCHING),
        )

    def _deliver(
        self, object_: dict[str, Any], at: datetime, *, received: datetime, kind: str = "", event_id: str = ""
    ) -> Report:
        digest = hashlib.sha256(orjson.dumps(object_)).hexdigest()[:24]
        kind = kind or f"generation.{object_['status']}"
        body = {"id": f"evt_{digest}", "type": kind, "api_version": "2026-05-11", "data": object_}
        delivery = Delivery(
            event_id=event_id or f"evt_{digest}",
            event_type=kind,
            endpoint_id=None,
            received_at=received,
            body=orjson.dumps(body),
            headers={"content-type": "application/json", "user-agent": kind, "rivya-signature": f"t=1,v1={digest}"},
        )
        return Report(source=Source.WEBHOOK, reported_at=received, claim=_claim(object_, at), delivery=delivery)

    def _object(
        self, identity: str, model: str, status: str, *, url: str, credits_used: int, at: datetime
    ) -> dict[str, Any]:
        error = {"code": "generation_failed", "message": "The model gave up after three attempts."}
        return {
            "id": identity,
            "status": status,
            "model": model,
            "reserved_credits": credits_used,
            "final_credits": {"succeeded": credits_used, "failed": 0}.get(status),
            "created_at": at.isoformat(),
            "updated_at": at.isoformat(),
            "result": {"primary_url": url, "urls": [url]} if status == "succeeded" else None,
            "error": error if status == "failed" else None,
        }


def _claim(object_: dict[str, Any], at: datetime) -> Claim:
    return Claim(
        object_["id"],
        object_["status"],
        model=object_["model"],
        reserved_credits=object_["reserved_credits"],
        final_credits=object_["final_credits"],
        created_at=at,
        updated_at=at,
        object=object_,
    )


async def make_up_record(url: str, record: MadeUpRecord) -> None:
    """Put it into the migrated database at `url`, on which no service runs yet."""
    reports = list(record.reports())
    async with open_ledger(url) as room:
        activity = Activity(room.database)
        recorder = Recorder(room.database, first_poll=lambda _, at: at + _LONG, changes=room.changes, activity=activity)
        for place in range(0, len(reports), 100):
            await recorder.record(reports[place : place + 100])
        await activity.run_once()
        async with room.database.transaction() as connection:
            await connection.execute(insert(submissions), record.submitted)
            await connection.execute(insert(rejections), record.rejected())
            given_up = {"state": Tracking.LOST, "next_poll_at": None, "last_error": "not_found", "not_found_count": 3}
            await connection.execute(update(polls).where(polls.c.generation_id == LOST_ID).values(given_up))
