"""Generations: a table, a gallery, the page of one with its history and an admin's acts, and the form to create one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import orjson
from fastapi import APIRouter, Depends, Request, Response

from app.api.generations import read_one
from app.api.parameters import GenerationParameters, read_list
from app.console.deliveries import collect
from app.console.filters import pretty, segment, web_url
from app.console.pages import Console, parse_query
from app.core.auth import Caller, Role
from app.core.errors import RequestInvalid, ServiceError
from app.core.records import dump_json, json_object
from app.gateway.models_cache import CachedModels
from app.ledger.models import (
    DeliveryFilter,
    Generation,
    GenerationFilter,
    Outcome,
    Status,
    StoredDelivery,
    Tracking,
    Transition,
)
from app.ledger.serializers import render
from app.notifications.repository import NotificationFilter
from app.notifications.schemas import NotificationOut
from app.notifications.service import owner_of
from app.operations.routes import poll_now
from app.rivya.payloads import usable_id
from app.submission.models import Submission, read_create, read_key

MOST_MATCHES: Final = 50
MOST_DELIVERIES: Final = 50
_LIST: Final = "/console/generations"
_EMPTY_FORM: Final = {"model": "", "prompt": "", "params": "", "client_request_id": ""}
_KINDS: Final = {
    **dict.fromkeys((".avif", ".gif", ".jpeg", ".jpg", ".png", ".webp"), "image"),
    **dict.fromkeys((".m4v", ".mov", ".mp4", ".webm"), "video"),
    **dict.fromkeys((".aac", ".flac", ".m4a", ".mp3", ".ogg", ".opus", ".wav"), "audio"),
}


@dataclass(frozen=True, slots=True)
class Medium:
    """A URL of a result, and what shows it: image, video, audio, or file, which is only linked."""

    url: str
    kind: str


def media_of(generation: Generation, category: str | None) -> list[Medium]:
    """The http and https URLs in the result of a generation, in which Rivya may put anything."""
    result = generation.rivya_object.get("result")
    if not isinstance(result, Mapping):
        return []
    listed = result.get("urls")
    values = [result.get("primary_url"), *(listed if isinstance(listed, list) else ())]
    urls = dict.fromkeys(value for value in values if isinstance(value, str) and web_url(value))
    return [Medium(url, _kind(url, category)) for url in urls]


def _kind(url: str, category: str | None) -> str:
    parts = urlsplit(url)
    if parts.scheme != "https":  # the policy of pages lets no others load
        return "file"
    known = _KINDS.get(PurePosixPath(parts.path).suffix.lower())
    return known or (category if category in ("image", "video", "audio") else "file")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A line of a timeline."""

    at: datetime
    title: str
    source: str
    status: str | None = None
    event_id: str | None = None
    detail: str | None = None
    occurred_at: datetime | None = None
    """When it happened at Rivya."""


def timeline(
    generation: Generation,
    transitions: Sequence[Transition],
    deliveries: Sequence[StoredDelivery],
    submission: Submission | None,
) -> list[Entry]:
    """What is known to have happened, oldest first; a delivery that made a transition is on its line."""
    entries = []
    if submission is not None:
        detail = f"attempt {submission.attempts}" if submission.attempts > 1 else None
        by = submission.submitted_by or "unknown"
        entries.append(Entry(at=submission.sent_at, title="Create sent to Rivya", source=f"token {by}", detail=detail))
    entries += [
        Entry(
            at=step.recorded_at,
            title=f"{step.from_status} to {step.to_status}" if step.from_status else f"First known: {step.to_status}",
            source=step.source,
            status=step.to_status,
            event_id=step.event_id,
            occurred_at=step.occurred_at,
        )
        for step in transitions
    ]
    on_their_line = {step.event_id for step in transitions}
    for each in deliveries:
        if each.event_id not in on_their_line:
            times = f"came {each.attempts} times" if each.attempts > 1 else None
            entries.append(
                Entry(
                    at=each.received_at,
                    title="Delivery that changed nothing",
                    source="webhook",
                    status=each.outcome,
                    event_id=each.event_id,
                    detail=times,
                )
            )
    for change in generation.metadata_changes or ():
        at = datetime.fromisoformat(str(change["at"]))
        entries.append(Entry(at=at, title="Metadata changed", source=f"token {change['by']}"))
    return sorted(entries, key=lambda entry: entry.at)


def request_of(submission: Submission | None) -> dict[str, Any] | None:
    """What the caller asked for; None where we did not submit it, or its body is no longer stored."""
    return None if submission is None else json_object(submission.request)


@dataclass(frozen=True, slots=True)
class GenerationPages:
    """The handlers of the pages."""

    console: Console

    def router(self) -> APIRouter:
        """The routes."""
        routes, require = self.console.router(), self.console.require
        reads, acts = [Depends(require(Role.READ))], [Depends(require(Role.ADMIN))]
        one = "/generations/{generation_id:path}"
        routes.get("/generations", dependencies=reads)(self.list_generations)
        routes.get(one, dependencies=reads)(self.show_generation)
        routes.post(f"{one}/poll", dependencies=acts)(self.poll)
        routes.post(f"{one}/replay", dependencies=acts)(self.replay_deliveries)
        routes.post(f"{one}/forget", dependencies=acts)(self.forget)
        return routes

    async def list_generations(self, request: Request) -> Response:
        """Newest first, or what a search finds."""
        asked = parse_query(request, GenerationParameters, view="table", q="")
        caller: Caller = request.state.caller
        text, next_cursor = request.query_params.get("q", "").strip(), None
        items: Sequence[Generation]
        if text:
            items = await self._search(text, caller.owner)
        else:
            items, next_cursor = await read_list(self.console.queries.generations, asked, caller)
        rows = [(each, media_of(each, self.console.category_of(each.model))) for each in items]
        return self.console.page(
            request,
            "generations.html",
            title="Generations",
            view="gallery" if request.query_params.get("view") == "gallery" else "table",
            text=text,
            rows=rows,
            next_cursor=next_cursor,
            is_cut=bool(text) and len(rows) == MOST_MATCHES,
            statuses=[str(each) for each in Status],
            trackings=[str(each) for each in Tracking],
        )

    async def _search(self, text: str, owner: str | None) -> Sequence[Generation]:
        if usable_id(text) is None:
            return []
        matching = await self.console.queries.search_generations(text, owner=owner, limit=MOST_MATCHES)
        if matching:
            return matching
        chosen = GenerationFilter(client_request_id=text, owner=owner)
        return (await self.console.queries.generations(chosen, after=None, limit=MOST_MATCHES)).items

    async def show_generation(self, request: Request, generation_id: str) -> Response:
        """Everything about one."""
        caller: Caller = request.state.caller
        generation = await read_one(self.console.queries, generation_id, caller)
        transitions = await self.console.queries.transitions(generation_id)
        chosen = DeliveryFilter(generation_id=generation_id)
        deliveries = (await self.console.queries.deliveries(chosen, after=None, limit=MOST_DELIVERIES)).items
        submission = await self.console.submission_repository.of_generation(generation_id)
        sent = NotificationFilter(token=owner_of(caller), generation_id=generation_id)
        notifications = (
            await self.console.notifications.list_notifications(sent, after=None, limit=MOST_DELIVERIES)
        ).rows
        error = generation.rivya_object.get("error")
        return self.console.page(
            request,
            "generation.html",
            title="Generation",
            generation=generation,
            media=media_of(generation, self.console.category_of(generation.model)),
            error=error if isinstance(error, Mapping) else None,
            entries=timeline(generation, transitions, deliveries, submission),
            deliveries=deliveries,
            notifications=[NotificationOut.of(row, is_admin=caller.role is Role.ADMIN) for row in notifications],
            asked_for=request_of(submission),
            submission=submission,
            raw=pretty(render(generation)),
            pretty=pretty,
        )

    async def poll(self, request: Request, generation_id: str) -> Response:
        """Ask Rivya about it now."""
        await read_one(self.console.queries, generation_id, request.state.caller)
        recorded = await poll_now(self.console.commands, generation_id)
        status = "unknown" if recorded.generation is None else recorded.generation.status
        news = {Outcome.STALE: "nothing new", Outcome.CONFLICT: "it contradicts the final status, which stays"}
        notice = f"Rivya was asked: {status} ({news.get(recorded.outcome, 'new')})."
        return self.console.redirect(request, f"{_LIST}/{segment(generation_id)}", notice=notice)

    async def replay_deliveries(self, request: Request, generation_id: str) -> Response:
        """Record all its deliveries again."""
        await read_one(self.console.queries, generation_id, request.state.caller)
        result = await collect(self.console.replay.apply(DeliveryFilter(generation_id=generation_id)))
        notice = f"Replayed {result.summary}." if result.total else "It has no deliveries."
        return self.console.redirect(request, f"{_LIST}/{segment(generation_id)}", notice=notice)

    async def forget(self, request: Request, generation_id: str) -> Response:
        """Delete it, confirmed by its id."""
        fields = request.state.form
        if fields.get("confirm") != generation_id:
            raise RequestInvalid("confirm: must be the id of the generation, typed as it is shown.")
        await self.console.commands.delete(generation_id, even_open=fields.get("even_open") == "yes")
        return self.console.redirect(request, _LIST, notice=f"Forgotten: {generation_id}")


def create_router(console: Console) -> APIRouter:
    """The form that creates a generation, as a program would; sending it twice pays once."""
    routes, submissions = console.router(), console.submissions

    def form(request: Request, fields: dict[str, str], *, status: int = 200, error: str | None = None) -> Response:
        """The form with these fields; its key makes sure that it is paid once, also if it is sent again."""
        fields = {**_EMPTY_FORM, "key": submissions.new_key(), **fields}
        return console.page(request, "submit.html", status=status, title="New generation", fields=fields, error=error)

    @routes.get("/new")
    async def show_form(request: Request, _: Annotated[Caller, Depends(console.require(Role.WRITE))]) -> Response:
        """An empty form."""
        return form(request, {})

    @routes.get("/new/models")
    async def list_models(request: Request, _: Annotated[Caller, Depends(console.require(Role.WRITE))]) -> Response:
        """Rivya's models as options of the field; empty where Rivya does not answer."""
        try:
            models = await console.gateway.models_cache.best()
        except ServiceError:
            models = None
        categories = models.categories if isinstance(models, CachedModels) else {}
        return console.page(request, "models.html", categories=categories)

    @routes.post("/new")
    async def submit(request: Request, caller: Annotated[Caller, Depends(console.require(Role.WRITE))]) -> Response:
        """Create the generation and show it; else the form again, with what Rivya or the receiver says."""
        fields: dict[str, str] = request.state.form
        try:
            create, key = read_create(_body(fields)), read_key([fields.get("key", "")])
            await console.audit.record_act(request)
            reply = await submissions.submit(create, key or submissions.new_key(), caller)
        except ServiceError as error:
            return form(request, fields, status=error.status, error=error.message)
        answer: dict[str, Any] = json_object(reply.body) or {}
        if reply.status >= 300:
            message = answer.get("error", {}).get("message") or f"Rivya answered with the status {reply.status}."
            return form(request, fields, status=reply.status, error=message)
        return console.redirect(request, f"/console/generations/{segment(answer.get('id', ''))}", notice="Submitted.")

    return routes


def _body(fields: dict[str, str]) -> bytes:
    """The create as a program would send it. Raises `RequestInvalid` for parameters that are no JSON object."""
    members: dict[str, Any] = {
        name: fields[name] for name in ("model", "prompt", "client_request_id") if fields.get(name)
    }
    if fields.get("params", "").strip():
        try:
            params = orjson.loads(fields["params"])
        except orjson.JSONDecodeError as error:
            raise RequestInvalid(
                f"params: is not JSON ({error.msg}, line {error.lineno}, column {error.colno})."
            ) from None
        if not isinstance(params, dict):
            raise RequestInvalid('params: must be a JSON object, such as {"aspectRatio": "1:1"}.')
        members["params"] = params
    return dump_json(members)
