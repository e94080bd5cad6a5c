"""The calls of Rivya's that are relayed as they are: path, what a caller needs, how long Rivya may take."""

from dataclasses import dataclass

from app.core.auth import Role
from app.gateway.kinds import Kind


@dataclass(frozen=True, slots=True)
class Relayed:
    """One of Rivya's documented calls; `path` names its parameter in braces."""

    name: str
    method: str
    path: str
    kind: Kind
    role: Role


MODELS = Relayed("models", "GET", "/api/v1/models", Kind.READ, Role.READ)
CREDITS = Relayed("credits", "GET", "/api/v1/credits", Kind.READ, Role.READ)
UPLOAD_FILE = Relayed("files.create", "POST", "/api/v1/files", Kind.UPLOAD, Role.WRITE)
GET_FILE = Relayed("files.get", "GET", "/api/v1/files/{file_id}", Kind.READ, Role.READ)
COMPLETE = Relayed("chat.complete", "POST", "/api/v1/chat/completions", Kind.TURN, Role.WRITE)
STREAM = Relayed("chat.stream", "POST", "/api/v1/chat/completions/stream", Kind.STREAM, Role.WRITE)
LIST_SESSIONS = Relayed("chat.sessions", "GET", "/api/v1/chat/sessions", Kind.READ, Role.READ)
GET_SESSION = Relayed("chat.session", "GET", "/api/v1/chat/sessions/{session_id}", Kind.READ, Role.READ)
