"""The course of a generation is read from `params.sandbox`, and refused when it is not valid."""

from typing import Any

import pytest

from app.sandbox.faults import DeliveryFaults
from app.sandbox.models import GenerationParams, SandboxParams, read_callback
from app.sandbox.responses import RivyaError, validate


def read(params: object) -> SandboxParams:
    return validate(GenerationParams, params).sandbox


def test_without_the_member_everything_is_left_to_the_sandbox() -> None:
    assert read({"size": "1024x1024"}) == SandboxParams()


def test_the_member_names_a_duration_an_end_and_a_fault() -> None:
    params = read({"sandbox": {"seconds": 1.5, "fail": True, "callback": "drop"}})
    assert (params.seconds, params.fail, params.callback) == (1.5, True, DeliveryFaults(drop=True))


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
def test_what_is_not_valid_is_refused(asked: Any) -> None:
    with pytest.raises(RivyaError) as refused:
        read({"sandbox": asked})
    assert refused.value.code == "validation_failed"
