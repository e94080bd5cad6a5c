"""What the demonstration submits, and what it tells you to try."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Case:
    """A generation to submit; `params.sandbox` is the sandbox's own, the rest is Rivya's."""

    name: str
    model: str
    wishes: dict[str, Any]

    @property
    def body(self) -> dict[str, Any]:
        """As it is posted."""
        return {"model": self.model, "prompt": self.name, "params": {"sandbox": self.wishes}}


CASES = (
    Case("an image", "z-image", {"seconds": 1}),
    Case("another image", "z-image", {"seconds": 2}),
    Case("a video that takes longer", "sandbox-video", {"seconds": 7}),
    Case("an image that fails", "z-image", {"seconds": 1.5, "fail": True}),
    Case("an image whose callback is dropped", "z-image", {"seconds": 2, "callback": "drop"}),
    Case("an image delivered twice and out of order", "z-image", {"seconds": 1, "callback": "duplicate,reorder"}),
)


def curl_lines(url: str, token: str) -> str:
    """Commands that work as they stand while the demonstration serves."""
    auth = f"-H 'Authorization: Bearer {token}'"
    body = '{"model": "z-image", "prompt": "a red fox in the snow"}'
    return f"""
still serving; try (Ctrl-C ends it):

  curl -s {auth} {url}/api/v1/generations
  curl -s {auth} -H 'Content-Type: application/json' -H 'Idempotency-Key: my-first' \\
       -d '{body}' {url}/api/v1/generations
  curl -s {auth} '{url}/api/v1/generations/TASK_ID?wait=30'
  curl -s {auth} {url}/api/v1/generations/TASK_ID/transitions
  curl -s {auth} {url}/api/v1/deliveries
  curl -s {auth} {url}/api/v1/endpoint
  curl -s {url}/readyz
  curl -s {url}/metrics

  export RECEIVER_URL={url} RECEIVER_TOKEN={token}    # for README's quickstart, and for
  .venv/bin/rivya-receiver generations list

and {url}/docs in a browser
"""
