"""Requests as bytes: whole ones, such as end a connection, broken ones, and such as never end."""

import gzip
from collections.abc import Callable

from tests.support.fast_path_comparison import chunked, delivery, read
from tests.support.intake_harness import event

BODY = event("task_1", event_id="evt_1")
DEEP = b'{"id":"evt_deep","data":' + b"[" * 400_000 + b"]" * 400_000 + b"}"
TWICE = b'{"id":"evt_a","id":"evt_b","type":"generation.succeeded","data":{"id":"t","id":"u","status":"failed"}}'
READ = "/api/v1/generations/task_0"
LONG = "x" * 199

Make = Callable[[], bytes]
WHOLE: dict[str, tuple[Make, int]] = {
    "delivery": (delivery, 200),
    "known again": (lambda: delivery("task_0"), 200),
    "key in the path": (lambda: delivery(head="POST /rivya/webhook/some-key HTTP/1.1"), 200),
    "slashes and a key": (lambda: delivery(head="POST //rivya//webhook//some-key?a=b HTTP/1.1"), 200),
    "slashes before another path": (lambda: read("//api/v1/generations/task_0"), 404),
    "query": (lambda: delivery(head="POST /rivya/webhook?a=b HTTP/1.1"), 200),
    "late": (lambda: delivery(late=400), 401),
    "forged": (lambda: delivery(body=BODY, sent=BODY.replace(b"task_1", b"task_2")), 401),
    "unsigned": (lambda: b"POST /rivya/webhook HTTP/1.1\r\nHost: r\r\nContent-Length: 2\r\n\r\n{}", 401),
    "empty": (lambda: b"POST /rivya/webhook HTTP/1.1\r\nHost: r\r\nContent-Length: 0\r\n\r\n", 400),
    "encoded": (
        lambda: delivery(body=BODY, sent=gzip.compress(BODY), extra="Content-Encoding: gzip\r\n"), 400),
    "bomb": (lambda: delivery(sent=gzip.compress(b"0" * 9_000_000), extra="Content-Encoding: gzip\r\n"), 400),
    "chunked": (lambda: delivery(body=BODY, sent=b"", length="", extra="Transfer-Encoding: chunked\r\n")
                + chunked(BODY), 200),
    "chunked and late": (lambda: delivery(body=BODY, sent=b"", length="", late=400,
                                          extra="Transfer-Encoding: chunked\r\n") + chunked(BODY), 401),
    "chunked in big letters": (
        lambda: delivery(body=BODY, sent=b"", length="", extra="TRANSFER-ENCODING: Chunked\r\n") + chunked(BODY), 200),
    "one name twice": (lambda: delivery(body=TWICE), 200),
    "one name twice, other bytes": (lambda: delivery(body=TWICE, sent=TWICE.replace(b"evt_b", b"evt_c")), 401),
    "byte order mark": (lambda: delivery(body=b"\xef\xbb\xbf" + BODY), 200),
    "UTF-16": (lambda: delivery(body=BODY.decode().encode("utf-16")), 200),
    "not UTF-8": (lambda: delivery(body=b"\xff\xfe\x00" + BODY), 200),
    "surrogate and NUL": (lambda: delivery(body=b'{"id":"evt_\\ud800","type":"\\u0000","data":{"a":"\\udfff"}}'), 200),
    "huge numbers": (lambda: delivery(body=b'{"id":"evt_n","type":"x","data":[1e400,' + b"9" * 5000 + b"]}"), 200),
    "deep": (lambda: delivery(body=DEEP), 200),
    "deep and forged": (lambda: delivery(body=DEEP, sent=DEEP + b" "), 401),
    "too large": (lambda: delivery(body=b" " * 2_000_000), 413),
    "small letters": (lambda: delivery().replace(b"Rivya-Signature", b"rivya-signature"), 200),
    "big letters": (lambda: delivery().replace(b"rivya-signature", b"RIVYA-SIGNATURE"), 200),
    "expected": (lambda: delivery(extra="Expect: 100-continue\r\n"), 100),
    "other method": (lambda: delivery(head="PUT /rivya/webhook HTTP/1.1"), 405),
    "GET with a delivery": (lambda: delivery(head="GET /rivya/webhook HTTP/1.1"), 405),
    "two slashes": (lambda: delivery(head="POST //rivya/webhook HTTP/1.1"), 200),
    "escaped": (lambda: delivery(head="POST /rivya/%77ebhook HTTP/1.1"), 200),
    "upwards": (lambda: delivery(head="POST /x/../rivya/webhook HTTP/1.1"), 404),
    "absolute": (lambda: delivery(head="POST http://r/rivya/webhook HTTP/1.1"), 200),
    "read": (read, 200),
    "read with a body": (lambda: read(extra="Content-Length: 2\r\n") + b"{}", 200),
    "read in chunks": (lambda: read(extra="Transfer-Encoding: chunked\r\n") + chunked(b"{}"), 200),
    "read in big letters": (
        lambda: read().replace(b"Authorization", b"AUTHORIZATION").replace(b"Bearer", b"BEARER"), 200),
    "read, expected": (lambda: read(extra="Expect: 100-continue\r\n"), 200),
    "read with an id": (lambda: read(extra="X-Request-Id: mine\r\n"), 200),
    "read with two ids": (lambda: read(extra="X-Request-Id: mine\r\nX-Request-Id: yours\r\n"), 200),
    "read with a wild id": (lambda: read(extra="X-Request-Id: a b<script>\r\n"), 200),
    "read with a preference": (lambda: read(extra="Prefer: wait=0\r\n"), 200),
    "read with a wait": (lambda: read(f"{READ}?wait=0"), 200),
    "read with a wrong wait": (lambda: read(f"{READ}?wait=x"), 400),
    "read with an empty query": (lambda: read(f"{READ}?"), 200),
    "read with a fragment": (lambda: read(f"{READ}#a"), 200),
    "read escaped": (lambda: read("/api/v1/generations/task%5F0"), 200),
    "read with a slash at the end": (lambda: read(f"{READ}/"), 404),
    "read of two slashes": (lambda: read("/api/v1//generations/task_0"), 404),
    "read of nothing": (lambda: read("/api/v1/generations/"), 404),
    "read of what is unknown": (lambda: read("/api/v1/generations/task_9"), 404),
    "read of a long name": (lambda: read(f"/api/v1/generations/{LONG}{LONG}"), 404),
    "read of a NUL": (lambda: read("/api/v1/generations/%00"), 404),
    "read of a surrogate": (lambda: read("/api/v1/generations/%ED%A0%80"), 404),
    "read of upwards": (lambda: read("/api/v1/generations/../generations/task_0"), 404),
    "read of signs": (lambda: read("/api/v1/generations/a;b=c,d:e@f!$&'()*+~|^`{}\\\"<>"), 404),
    "absolute read": (lambda: read(f"http://other{READ}"), 200),
    "read of the history": (lambda: read(f"{READ}/transitions"), 200),
    "read without a token": (lambda: read(token="").replace(b"Authorization: Bearer \r\n", b""), 401),
    "read with a wrong token": (lambda: read(token="nobody-gave-me-this"), 401),
    "read of what is unknown, with a wrong token": (
        lambda: read("/api/v1/generations/task_9", token="nobody-gave-me-this"), 401),
    "read with two tokens, first wrong": (
        lambda: read().replace(b"Authorization", b"Authorization: Bearer nobody\r\nAuthorization"), 401),
    "read with two tokens, last wrong": (lambda: read(extra="Authorization: Bearer nobody-gave-it\r\n"), 200),
    "read with two ways": (
        lambda: read().replace(b"Authorization", b"Authorization: Basic eA==\r\nAuthorization"), 401),
    "read with a token and blanks": (lambda: read().replace(b"Bearer ", b"Bearer   "), 200),
    "read with a token by tab": (lambda: read().replace(b"Bearer ", b"Bearer\t"), 401),
    "read with a token not in ASCII": (lambda: read(token="\xe9\xff"), 401),
    "HEAD": (lambda: read(method="HEAD"), 200),
    "PATCH": (lambda: read(method="PATCH"), 405),
    "OPTIONS": (lambda: read(method="OPTIONS"), 405),
    "read with a header of 60 kB": (lambda: read(extra=f"X-A: {'a' * 60_000}\r\n"), 200),
    "read with a thousand headers": (lambda: read(extra="".join(f"X-{n}: a\r\n" for n in range(1000))), 200),
}  # fmt: skip
"""What is whole, and the status of its first answer."""

CLOSING: dict[str, tuple[Make, int]] = {
    "HTTP/1.0": (lambda: delivery(head="POST /rivya/webhook HTTP/1.0"), 200),
    "HTTP/1.0 kept": (lambda: delivery(head="POST /rivya/webhook HTTP/1.0", extra="Connection: keep-alive\r\n"), 200),
    "HTTP/1.0 read": (lambda: read(version="HTTP/1.0"), 200),
    "closed": (lambda: delivery(extra="Connection: close\r\n"), 200),
    "closed in big letters": (lambda: delivery(extra="CONNECTION: CLOSE\r\n"), 200),
    "kept and closed": (lambda: delivery(extra="Connection: keep-alive, close\r\n"), 200),
    "read, closed": (lambda: read(extra="Connection: close\r\n"), 200),
    "read, closed and kept": (lambda: read(extra="Connection: close\r\nConnection: keep-alive\r\n"), 200),
}
"""After these the connection is closed."""

BROKEN: dict[str, Make] = {
    "short length": lambda: delivery(length="5"),
    "long length": lambda: delivery(length="5000"),
    "no length": lambda: delivery(length=""),
    "two lengths": lambda: delivery(extra="Content-Length: 5\r\n"),
    "same length twice": lambda: delivery(body=BODY, extra=f"Content-Length: {len(BODY)}\r\n"),
    "negative length": lambda: delivery(length="-5"),
    "signed length": lambda: delivery(length="+5"),
    "hexadecimal length": lambda: delivery(length="0x10"),
    "listed length": lambda: delivery(length="5, 5"),
    "huge length": lambda: delivery(length="9" * 30),
    "length and chunked": lambda: delivery(extra="Transfer-Encoding: chunked\r\n"),
    "chunked and length": lambda: (
        delivery(sent=b"", length="5", extra="Transfer-Encoding: chunked\r\n") + b"0\r\n\r\n" + read()
    ),
    "chunked, then not": lambda: delivery(length="", extra="Transfer-Encoding: chunked, identity\r\n"),
    "chunked by another name": lambda: delivery(length="", extra="Transfer-Encoding: xchunked\r\n"),
    "a blank before the colon": lambda: delivery(length="", extra="Transfer-Encoding : chunked\r\n"),
    "wild chunk": lambda: delivery(length="", extra="Transfer-Encoding: chunked\r\n", sent=b"zz\r\n{}\r\n"),
    "huge chunk": lambda: delivery(length="", extra="Transfer-Encoding: chunked\r\n", sent=b"f" * 17 + b"\r\n{}\r\n"),
    "short chunk": lambda: delivery(length="", extra="Transfer-Encoding: chunked\r\n", sent=b"1\r\n{}\r\n0\r\n\r\n"),
    "negative chunk": lambda: delivery(length="", extra="Transfer-Encoding: chunked\r\n", sent=b"-1\r\n{}\r\n"),
    "HTTP/0.9": lambda: b"GET " + READ.encode() + b"\r\n\r\n",
    "HTTP/1.2": lambda: read(version="HTTP/1.2"),
    "HTTP/2.0": lambda: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "unknown method": lambda: read(method="BREW"),
    "small method": lambda: read(method="get"),
    "CONNECT": lambda: read("r:443", method="CONNECT"),
    "asterisk": lambda: read("*", method="OPTIONS"),
    "blank in the path": lambda: read("/api/v1/generations/task_0 x"),
    "not ASCII in the path": lambda: read("/api/v1/generations/\xe9"),
    "NUL in the path": lambda: read("/api/v1/generations/\x00"),
    "NUL in a header": lambda: read(extra="X-A: a\x00b\r\n"),
    "NUL in a name": lambda: read(extra="X\x00A: b\r\n"),
    "folded header": lambda: read(extra="X-A: a\r\n  b\r\n"),
    "folded signature": lambda: delivery().replace(b",v1=", b",\r\n v1="),
    "bare CR": lambda: read(extra="X-A: a\rX-B: b\r\n"),
    "bare LF": lambda: read().replace(b"\r\n", b"\n"),
    "no name": lambda: read(extra=": a\r\n"),
    "no colon": lambda: read(extra="nonsense\r\n"),
    "half a head": lambda: read()[:-2],
    "half a line": lambda: read()[:20],
    "nothing after CRLF": lambda: b"\r\n\r\n\r\n",
    "TLS": lambda: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(200)),
    "smuggled read": lambda: (
        delivery(length="", extra="Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", sent=b"0\r\n\r\n") + read()
    ),
}
"""What is not whole, or not HTTP: both answer the same, refuse or wait."""

ENDLESS: dict[str, Make] = {
    "path": lambda: read("/" + "a" * 400_000)[:-4],
    "header": lambda: read(extra=f"X-A: {'a' * 400_000}")[:-4],
    "name": lambda: read(extra="X" * 400_000)[:-4],
    "headers": lambda: read(extra="".join(f"X-{n}: a\r\n" for n in range(50_000)))[:-4],
    "chunk extension": lambda: delivery(length="", extra="Transfer-Encoding: chunked\r\n", sent=b"1;" + b"a" * 400_000),
    "trailer": lambda: delivery(length="", extra="Transfer-Encoding: chunked\r\n", sent=b"0\r\nX-A: " + b"a" * 400_000),
}
"""What goes on and on, and is no body."""
