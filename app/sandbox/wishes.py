"""What a request wishes for in `params.sandbox`: how long it takes, whether it fails, what befalls its callback."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from app.sandbox.errors import invalid
from app.sandbox.faults import DeliveryFaults


@dataclass(frozen=True)
class Wishes:
    """A request's own course; None: the model's duration, the sandbox's faults."""

    seconds: float | None = None
    fails: bool = False
    callback: DeliveryFaults | None = None


def read_wishes(params: dict[str, Any]) -> Wishes:
    """Read `{"seconds": 1.5, "fail": true, "callback": "duplicate,reorder"}`; raises `validation_failed`."""
    asked = params.get("sandbox", {})
    if not isinstance(asked, dict) or not asked.keys() <= {"seconds", "fail", "callback"}:
        raise invalid("params.sandbox takes seconds, fail and callback.")
    seconds = asked.get("seconds")
    if seconds is not None and (type(seconds) not in (int, float) or seconds < 0):
        raise invalid("params.sandbox.seconds must be a number, not negative.")
    fails = asked.get("fail", False)
    if not isinstance(fails, bool):
        raise invalid("params.sandbox.fail must be true or false.")
    callback = asked.get("callback")
    if callback is not None and not isinstance(callback, str):
        raise invalid("params.sandbox.callback must be a string.")
    return Wishes(seconds, fails, None if callback is None else read_callback(callback))


def read_callback(text: str) -> DeliveryFaults:
    """Read `drop`, `duplicate:3`, `delay:1.5`, `skew:-600`, `early`, … or several with commas between."""
    faults = DeliveryFaults()
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, _, amount = part.partition(":")
        if name not in _KINDS:
            raise invalid(f"params.sandbox.callback does not know {name!r}.")
        try:
            setattr(faults, name, _KINDS[name](amount))
        except ValueError:
            raise invalid(f"params.sandbox.callback can't read the amount in {part!r}.") from None
    return faults


def _flag(amount: str) -> bool:
    if amount:
        raise ValueError(amount)
    return True


def _not_negative(amount: float) -> float:
    if not 0 <= amount < math.inf:
        raise ValueError(amount)
    return amount


_KINDS: dict[str, Callable[[str], object]] = {
    "drop": _flag,
    "delay": lambda amount: _not_negative(float(amount)),
    "duplicate": lambda amount: int(_not_negative(int(amount or 1))),
    "reorder": _flag,
    "forge": _flag,
    "contradict": _flag,
    "early": _flag,
    "skew": float,
    "corrupt": _flag,
}
