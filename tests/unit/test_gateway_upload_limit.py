"""A form is measured as it goes by, however it is cut into pieces, and stopped once its file is too large."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import BodyTooLarge
from app.gateway.upload_limit import LARGEST, LIMITS, UploadLimit

FORM = "multipart/form-data; boundary=b0und"
IMAGE = LIMITS["image"]


def part(name: str, content: bytes, *, filename: str | None = None) -> bytes:
    more = f'; filename="{filename}"' if filename else ""
    return f'--b0und\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode() + content + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--b0und--\r\n"


def fed(body: bytes, *, size: int = 65_536, content_type: str = FORM, declared: int | None = None) -> UploadLimit:
    upload_limit = UploadLimit(content_type, declared=declared)
    upload_limit.check()
    for start in range(0, len(body), size):
        upload_limit.feed(body[start : start + size])
    return upload_limit


def file(size: int) -> bytes:
    return part("file", bytes(size), filename='a "name=kind".png')


@pytest.mark.parametrize("kind", LIMITS)
@pytest.mark.parametrize("is_kind_first", [True, False])
def test_a_file_of_exactly_the_limit_passes_and_one_byte_more_does_not(kind: str, is_kind_first: bool) -> None:
    def ordered(size: int) -> bytes:
        parts = [part("kind", kind.encode()), file(size)]
        return form(*(parts if is_kind_first else reversed(parts)))

    fed(ordered(LIMITS[kind]))
    with pytest.raises(BodyTooLarge, match=f"kind {kind} has at most {LIMITS[kind] // 1024**2} MB"):
        fed(ordered(LIMITS[kind] + 1))


def test_a_declared_length_beyond_every_limit_is_refused_before_the_first_byte() -> None:
    with pytest.raises(BodyTooLarge, match="a file has at most 50 MB"):
        UploadLimit(FORM, declared=LARGEST + 70_000).check()


def test_a_declared_length_beyond_the_limit_of_the_kind_is_refused_as_soon_as_the_kind_is_known() -> None:
    head = part("kind", b"image") + b"--b0und\r\n"
    fed(head, declared=IMAGE + 60_000)
    with pytest.raises(BodyTooLarge, match="kind image"):
        fed(head, declared=IMAGE + 70_000)


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "", "multipart/form-data", "multipart/mixed; boundary=b0und", FORM.replace("b0", "other")],
)
def test_what_is_not_read_as_a_form_is_only_counted(content_type: str) -> None:
    body = form(part("kind", b"image"), file(IMAGE + 1))
    fed(body, content_type=content_type)
    with pytest.raises(BodyTooLarge):
        fed(bytes(LARGEST + 70_000), content_type=content_type)


def test_an_unknown_kind_is_rivyas_to_refuse() -> None:
    fed(form(part("kind", b"document"), file(IMAGE + 1)))


def test_only_the_first_kind_counts_and_only_its_beginning_is_kept() -> None:
    fed(form(part("kind", b"video"), part("kind", b"image"), file(IMAGE + 1)))
    fed(form(part("kind", b"image" + b"x" * 1000), file(IMAGE + 1)))


def test_a_part_without_a_name_or_without_an_end_of_its_head_does_not_stop_the_form() -> None:
    fed(form(b"--b0und\r\nContent-Type: text/plain\r\n\r\nx\r\n", part("kind", b"image")))
    fed(b"--b0und\r\n" + b"x" * 40_000)
    fed(b"--b0und\r\nContent-Disp")


def test_what_is_odd_and_still_a_form_is_measured() -> None:
    nameless = b"--b0und\r\nContent-Disposition: form-data\r\n\r\nx\r\n"
    latin = part("file", bytes(IMAGE + 1), filename="f").replace(b'"f"', b'"\xe9"')
    with pytest.raises(BodyTooLarge, match="kind image"):
        fed(form(nameless, part("kind", b"image"), latin))


def test_an_empty_piece_is_not_the_end_of_the_form() -> None:
    upload_limit = fed(part("kind", b"image"))
    upload_limit.feed(b"")
    with pytest.raises(BodyTooLarge, match="kind image"):
        upload_limit.feed(file(IMAGE + 1))


def test_a_quoted_boundary_and_a_preamble_are_understood() -> None:
    body = b"preamble\r\n" + form(part("kind", b"image"), file(IMAGE + 1))
    with pytest.raises(BodyTooLarge):
        fed(body, content_type='Multipart/Form-Data; charset=utf-8; boundary="b0und"')


@given(size=st.integers(1, 400), content=st.binary(max_size=300))
def test_how_a_form_is_cut_into_pieces_changes_nothing(size: int, content: bytes) -> None:
    hidden = part("file", content.replace(b"\r\n--b0und", b""), filename="f")
    upload_limit = fed(form(hidden, part("kind", b" audio "), part("model", b"m")), size=size)
    assert upload_limit.kind == b" audio "
    assert upload_limit.size == len(content.replace(b"\r\n--b0und", b""))
