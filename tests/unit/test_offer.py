"""The usual signature header is read the short way, to the same end as any other."""

from hypothesis import given
from hypothesis import strategies as st

from app.rivya.schemes import parse_scheme
from app.rivya.signature import SignatureClaim, SignatureHeaderParser

READER = SignatureHeaderParser(parse_scheme("timestamped"))
NAME = b"rivya-signature"


@given(
    st.integers(0, 10**14 - 1).map(lambda number: b"%d" % number), st.binary(min_size=32, max_size=32), st.booleans()
)
def test_the_usual_form_is_read_like_any_other(stamp: bytes, mac: bytes, is_upper: bool) -> None:
    written = mac.hex().upper() if is_upper else mac.hex()
    usual = b"t=" + stamp + b",v1=" + written.encode()
    read = READER.read([(NAME, usual)])
    assert read == READER.read([(NAME, usual.replace(b",", b", "))]) == READER.read([(NAME, usual + b",")])
    assert isinstance(read, SignatureClaim)
    assert (read.prefix, list(read.macs)) == (stamp + b".", [mac])


def test_what_is_not_quite_the_usual_form_is_read_the_long_way() -> None:
    mac = b"ab" * 32
    twice = READER.read([(NAME, b"t=1,v1=" + mac), (NAME, b"v1=" + mac)])
    assert isinstance(twice, SignatureClaim)
    assert len(twice.macs) == 2
    other = SignatureHeaderParser(parse_scheme("timestamped;encoding=base64")).read([(NAME, b"t=1,v1=" + mac)])
    assert not isinstance(other, SignatureClaim)
