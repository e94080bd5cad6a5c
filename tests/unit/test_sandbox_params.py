"""A request's wishes are read from `params.sandbox`, and refused when they make no sense."""

from typing import Any

import pytest

from app.sandbox.faults import DeliveryFaults
from app.sandbox.models import SandboxParams, read_callback, read_params
from app.sandbox.responses import RivyaError


def test_no_wishes_leave_everything_to_the_sandbox() -> None:
    assert read_params({"size": "1024x1024"}) == SandboxParams()


def test_wishes_name_a_duration_an_end_and_a_fault() -> None:
    options = read_params({"sandbox": {"seconds": 1.5, "fail": True, "callback": "drop"}})
    assert options == SandboxParams(1.5, fails=True, callback=DeliveryFaults(drop=True))


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("", DeliveryFaults()),
        ("duplicate", DeliveryFaults(duplicate=1)),
        ("duplicate:3", DeliveryFaults(duplicate=3)),
        ("delay:1.5", DeliveryFaults(delay=1.5)),
        ("skew:-600", DeliveryFaults(skew=-600)),
        ("duplicate, reorder", DeliveryFaults(duplicate=1, reorder=True)),
        ("early,contradict", DeliveryFaults(early=True, contradict=True)),
        ("forge,corrupt", DeliveryFaults(forge=True, corrupt=True)),
    ],
)
def test_a_callback_names_one_fault_or_several(text: str, faults: DeliveryFaults) -> None:
    assert read_callback(text) == faults


@pytest.mark.parametrize(
    "asked",
    [
        [],
        {"second": 1},
        {"seconds": "1"},
        {"seconds": -1},
        {"seconds": True},
        {"fail": "yes"},
        {"callback": 1},
        {"callback": "lose"},
        {"callback": "delay"},
        {"callback": "delay:-1"},
        {"callback": "delay:nan"},
        {"callback": "drop:1"},
        {"callback": "duplicate:-1"},
        {"callback": "duplicate:x"},
    ],
)
def test_wishes_that_make_no_sense_are_refused(asked: Any) -> None:
    with pytest.raises(RivyaError) as refused:
        read_params({"sandbox": asked})
    assert refused.value.code == "validation_failed"
