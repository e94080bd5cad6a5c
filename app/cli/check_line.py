"""One line of `rivya-receiver check`: what was tested, whether it is well, and what to do where it isn't."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Line:
    """One thing tested; what could not be tested is not well either."""

    name: str
    ok: bool
    detail: str

    def __str__(self) -> str:
        return f"{'ok  ' if self.ok else 'FAIL'}  {self.name}: {self.detail}"
