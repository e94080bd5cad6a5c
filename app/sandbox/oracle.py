"""The truth about everything in the sandbox, secrets included, as JSON: what a test compares the service with."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from app.sandbox.endpoint import Endpoint
    from app.sandbox.event import Delivery
    from app.sandbox.files import File
    from app.sandbox.generation import Generation
    from app.sandbox.keys import Key
    from app.sandbox.state import Sandbox


def state_of(sandbox: Sandbox) -> dict[str, Any]:
    """Everything, oldest first."""
    return {
        "settings": asdict(sandbox.settings),
        "faults": asdict(sandbox.faults),
        "keys": [_key(key) for key in sandbox.keys],
        "credits": {key.account: sandbox.purse.credits(key.account) for key in sandbox.keys},
        "generations": [_generation(generation) for generation in sandbox.generations.by_id.values()],
        "files": [_file(file) for file in sandbox.files.by_id.values()],
        "chat_sessions": [session.with_messages() for session in sandbox.chat.sessions.values()],
        "streams": [asdict(streamed) for streamed in sandbox.streams.log],
        "charges": sandbox.purse.by_key(),
        "calls": {route: _calls(sandbox, route) for route in sorted(sandbox.calls.counts)},
        "endpoints": [_endpoint(endpoint) for endpoint in sandbox.endpoints.by_id.values()],
        "deliveries": [_delivery(delivery) for delivery in sandbox.courier.log],
    }


def _key(key: Key) -> dict[str, Any]:
    return {**asdict(key), "expires_at": None if key.expires_at is None else key.expires_at.isoformat()}


def _generation(generation: Generation) -> dict[str, Any]:
    return {
        **generation.as_json(),
        "account": generation.account,
        "client_request_id": generation.client_request_id,
        "idempotency_key": generation.charge.idempotency_key,
        "moves": generation.moves,
        "polls": list(generation.polls),
    }


def _file(file: File) -> dict[str, Any]:
    return {
        **file.as_json(),
        "account": file.account,
        "sha256": file.sha256,
        "client_request_id": file.client_request_id,
    }


def _calls(sandbox: Sandbox, route: str) -> dict[str, Any]:
    return {"count": sandbox.calls.counts[route], "recent": [asdict(called) for called in sandbox.calls.of(route)]}


def _endpoint(endpoint: Endpoint) -> dict[str, Any]:
    return {**endpoint.with_secret(), "account": endpoint.account, "past_secrets": endpoint.past_secrets}


def _delivery(delivery: Delivery) -> dict[str, Any]:
    return {
        **delivery.as_json(),
        "generation_id": delivery.event.generation_id,
        "carried": delivery.event.carried,
        "attempts": delivery.attempts,
        "faults": asdict(delivery.faults),
    }
