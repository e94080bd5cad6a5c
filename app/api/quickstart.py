"""The quickstart, step by step, as curl against a receiver: README shows the same words, and a test runs them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """One step: what it does, and the commands that do it in a POSIX shell."""

    title: str
    commands: str


STEPS = (
    Step(
        "where the receiver is, and a token whose role is write",
        """\
URL=${RECEIVER_URL:-http://127.0.0.1:8000}
AUTH="Authorization: Bearer $RECEIVER_TOKEN"
JSON='Content-Type: application/json'
member() { python3 -c "import json, sys; print(json.load(sys.stdin)['$1'])"; }""",
    ),
    Step(
        "list the models, or look at one",
        """\
curl -s -H "$AUTH" $URL/api/v1/models
curl -s -H "$AUTH" $URL/api/v1/models/z-image""",
    ),
    Step(
        "submit a generation; repeated with the same key it is paid once",
        """\
TASK=$(curl -s -H "$AUTH" -H "$JSON" -H 'Idempotency-Key: order-1' $URL/api/v1/generations \\
    -d '{"model": "z-image", "prompt": "a red fox in the snow", "client_request_id": "order-1"}' | member id)""",
    ),
    Step(
        "its status: as it is now, or as soon as it is settled; its history; a list",
        """\
curl -s -H "$AUTH" $URL/api/v1/generations/$TASK
curl -s -H "$AUTH" "$URL/api/v1/generations/$TASK?wait=30"
curl -s -H "$AUTH" $URL/api/v1/generations/$TASK/transitions
curl -s -H "$AUTH" "$URL/api/v1/generations?status=succeeded&limit=20\"""",
    ),
    Step(
        "track a task that was created elsewhere, or attach something to any",
        """\
curl -s -X PUT -H "$AUTH" -H "$JSON" $URL/api/v1/generations/$TASK -d '{"metadata": {"order": 7}}'""",
    ),
    Step(
        "credits that are left; credits spent, by token, model and day",
        """\
curl -s -H "$AUTH" $URL/api/v1/credits
curl -s -H "$AUTH" $URL/api/v1/usage""",
    ),
    Step(
        "webhook: nothing to register, the receiver does it; its endpoint, and what was delivered",
        """\
curl -s -H "$AUTH" $URL/api/v1/endpoint
curl -s -H "$AUTH" $URL/api/v1/deliveries""",
    ),
    Step(
        "upload a file",
        """\
FILE=$(curl -s -H "$AUTH" -F kind=image -F file=@fox.png $URL/api/v1/files | member file_id)
curl -s -H "$AUTH" $URL/api/v1/files/$FILE""",
    ),
    Step(
        "chat, go on in the same session, look at it",
        """\
SESSION=$(curl -s -H "$AUTH" -H "$JSON" -H 'Idempotency-Key: turn-1' $URL/api/v1/chat/completions \\
    -d '{"model": "gpt-5-2-chat", "message": "Name a fox."}' | member session_id)
curl -s -H "$AUTH" -H "$JSON" $URL/api/v1/chat/completions \\
    -d '{"model": "gpt-5-2-chat", "message": "Another one.", "session_id": "'$SESSION'"}'
curl -s -H "$AUTH" $URL/api/v1/chat/sessions
curl -s -H "$AUTH" $URL/api/v1/chat/sessions/$SESSION""",
    ),
    Step(
        "chat as a stream of server-sent events, as Rivya writes them",
        """\
curl -sN -H "$AUTH" -H "$JSON" $URL/api/v1/chat/completions/stream \\
    -d '{"model": "gpt-5-2-chat", "message": "Hello."}'""",
    ),
    Step(
        "how the receiver is; no token is needed",
        """\
curl -s $URL/readyz
curl -s $URL/metrics""",
    ),
)


def as_script() -> str:
    """All steps in one piece of shell."""
    return "\n\n".join(f"# {number}. {step.title}\n{step.commands}" for number, step in enumerate(STEPS, start=1))
