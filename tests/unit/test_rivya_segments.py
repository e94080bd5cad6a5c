"""An id is one segment of a path, whatever is in it."""

import pytest

from app.rivya.client import segment
from app.rivya.errors import RivyaNotFound


def test_an_id_is_quoted_to_one_segment() -> None:
    assert segment("a/../b?c#d") == "a%2F..%2Fb%3Fc%23d"


@pytest.mark.parametrize("identity", ["", ".", "..", "a\x00b"])
def test_what_is_no_id_is_not_found(identity: str) -> None:
    with pytest.raises(RivyaNotFound):
        segment(identity)
