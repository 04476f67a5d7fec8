"""HTTP requests that are broken, hostile or just wrong, as the bytes that go over the wire."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from bad_files import good_files

CLOSED = 0  # instead of a status: the connection is closed without an answer
BOUNDARY = b"boundary-7f3a"

Pieces = Iterable[bytes | float]


@dataclass(frozen=True)
class BadRequest:
    """A request, and the statuses that are right for it.

    Attributes:
        pieces: What is sent, and between it the seconds to wait.
        hang_up: Say after it that no more will be sent.
    """

    name: str
    pieces: Callable[[], Pieces]
    statuses: frozenset[int]
    hang_up: bool = False


def post(
    body: bytes,
    content_type: bytes = b"application/octet-stream",
    *headers: bytes,
    target: bytes = b"/v1/annotate",
    length: int | None = None,
) -> bytes:
    """A whole request; `length` in place of the true Content-Length."""
    lines = [
        b"POST " + target + b" HTTP/1.1", b"Host: localhost", b"Connection: close",
        b"Content-Type: " + content_type,
        b"Content-Length: %d" % (len(body) if length is None else length), *headers,
    ]  # fmt: skip
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def chunked(*chunks: bytes) -> bytes:
    """The head of a chunked request and what is given."""
    head = b"POST /v1/annotate HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(chunks)


def part(data: bytes, *headers: bytes, disposition: bytes | None = None) -> bytes:
    """A part of a form."""
    if disposition is None:
        disposition = b'form-data; name="image"; filename="a.png"'
    lines = [b"Content-Disposition: " + disposition] if disposition else []
    return b"--" + BOUNDARY + b"\r\n" + b"\r\n".join([*lines, *headers, b"", data]) + b"\r\n"


def form(*parts: bytes, end: bytes = b"--" + BOUNDARY + b"--\r\n", query: bytes = b"") -> bytes:
    """A request with a form."""
    content_type = b"multipart/form-data; boundary=" + BOUNDARY
    return post(b"".join(parts) + end, content_type, target=b"/v1/annotate" + query)


def _requests(kinds: dict[str, tuple[bytes, int | tuple[int, ...]]]) -> Iterator[BadRequest]:
    for name, (data, statuses) in kinds.items():
        allowed = frozenset([statuses] if isinstance(statuses, int) else statuses)
        yield BadRequest(name, partial(_whole, data), allowed)


def _whole(data: bytes) -> Pieces:
    return [data]


def multipart() -> Iterator[BadRequest]:
    """Forms."""
    png = good_files()["png"]
    good = part(png)
    nested = b"multipart/mixed; boundary=inner"
    inner = b"--inner\r\nContent-Disposition: file\r\n\r\n" + png + b"\r\n--inner--\r\n"
    kinds: dict[str, tuple[bytes, int | tuple[int, ...]]] = {
        "no boundary": (post(good, b"multipart/form-data"), 400),
        "another boundary": (post(good, b"multipart/form-data; boundary=other"), 400),
        "boundary of 5000": (post(good, b"multipart/form-data; boundary=" + b"x" * 5000), 400),
        "boundary of odd bytes": (post(good, b"multipart/form-data; boundary=\xff\xfe"), 400),
        "not terminated": (form(good, end=b""), 400),
        "closing boundary without dashes": (form(good, end=b"--" + BOUNDARY), 400),
        "stops in a file": (form(good[:-200], end=b""), 400),
        "empty body": (post(b"", b"multipart/form-data; boundary=x"), 400),
        "text before the first boundary": (form(b"junk", good), 400),
        "line feeds alone": (form(good.replace(b"\r\n", b"\n")), 400),
        "thousands of parts": (form(good * 5000), 413),
        "a huge part header": (form(part(png, b"X: " + b"y" * 100_000)), 400),
        "a thousand part headers": (form(part(png, *[b"X: y"] * 1000)), 400),
        "part header without a colon": (form(part(png, b"nonsense")), 400),
        "part header with a zero": (form(part(png, b"X\0Y: z")), 400),
        "a huge name of a field": (
            form(part(png, disposition=b"form-data; filename=a; name=" + b"n" * 50_000)), 400,
        ),
        "nested": (form(part(inner, b"Content-Type: " + nested)), 415),
        "base64": (form(part(b"iVBORw0KGgo=", b"Content-Transfer-Encoding: base64")), 415),
        "mixed instead of form-data": (post(good, b"multipart/mixed; boundary=" + BOUNDARY), 415),
        "json": (post(b'{"image": "AAAA"}', b"application/json"), 415),
        "content type of rubbish": (post(png, b";;;=\xff\"'\\"), 415),
    }  # fmt: skip
    return _requests(kinds)


def filenames() -> Iterator[BadRequest]:
    """Odd names of files, which never lead anywhere."""
    png = good_files()["png"]
    names = (
        b"../../../etc/passwd", b"..\\..\\windows\\win.ini", b"/", b".", b"..", b"...",
        b"C:\\a.png", b"a\0b.png", b"\xff\xfe\xfd.png", b"<script>alert(1)</script>.png",
        b"'; DROP TABLE images", b"$(id).png", b"%00%2e%2e%2f", b"%s%n%x", b"{0.__class__}",
        b"\xe2\x80\xaegnp.exe",
        b"\xf0\x9f\xa9\xbb" * 200, b"a" * 3000, b"con.png", b"a\tb.png", b" .png", b"-rf",
    )  # fmt: skip
    for name in names:
        disposition = b'form-data; name="i"; filename="' + name + b'"'
        data = form(part(png, disposition=disposition))
        yield BadRequest(f"named {name[:20]!r}", partial(_whole, data), frozenset({200, 400}))
    for name in (b"a,b.png", b"a\tb.png", b"", b" a.png"):
        disposition = b'form-data; name="i"; filename="' + name + b'"'
        data = form(part(png, disposition=disposition) * 2)
        data = data.replace(b"Host:", b"Accept: text/csv\r\nHost:", 1)
        yield BadRequest(f"run with {name!r}", partial(_whole, data), frozenset({200, 422}))


def queries() -> Iterator[BadRequest]:
    """Wrong options, methods and paths."""
    png = good_files()["png"]
    wrong = (
        b"k=", b"k=1e3", b"k=99999999999999999999", b"k=1&k=2x", b"decider=best", b"min_score=inf",
        b"neighbours=3", b"%6b=%30", b"k=%00", b"k=%FF", b"k='||1=1", b"x" * 8000 + b"=1",
    )  # fmt: skip
    for query in wrong:
        data = post(png, target=b"/v1/annotate?" + query)
        yield BadRequest(f"?{query[:20].decode()}", partial(_whole, data), frozenset({422}))
    head = b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    others = {
        b"GET /v1/embed": 405, b"PUT /v1/annotate": 405, b"DELETE /v1/annotate": 405,
        b"TRACE /": 405, b"BREW /": 405, b"GET /v1/nothing": 404, b"GET /../../etc/passwd": 404,
        b"GET /%2e%2e/%2e%2e/etc/passwd": 404, b"GET /page/../settings.py": 404, b"GET /%00": 404,
        b"GET /v1/neighbors/..%2f..%2fetc%2fpasswd/image": 404, b"GET /v1/neighbors//image": 404,
        b"GET /v1/neighbors/%FF%FE/image": 404, b"GET /v1/concepts?limit=x": 422,
        b"GET /v1/concepts?q=" + b"a" * 300: 422, b"GET /v1/concepts?limit=1001": 422,
        b"OPTIONS *": 404, b"GET http://localhost/nothing": 404, b"POST /v1/reload": 403,
        b"GET /" + b"a/" * 5000: 404, b"GET /?" + b"&" * 9000 + b"/..": 200,
    }  # fmt: skip
    for line, status in others.items():
        name = line[:40].decode()
        yield BadRequest(name, partial(_whole, line + head), frozenset({status}))


def vectors() -> Iterator[BadRequest]:
    """Vectors in JSON and in arrays of numpy."""
    json = b"application/json"
    texts: dict[str, tuple[bytes, int]] = {
        "nothing": (b"", 422),
        "cut off": (b'{"vectors": [[0.1, 0.2', 422),
        "not UTF-8": (b'{"vectors": [["\xff"]]}', 422),
        "a lone surrogate": (b'{"vectors": [[1]], "ids": ["\\ud800"]}', 422),
        "deep lists": (b"[" * 1900, 422),
        "deeper lists": (b"[" * 5_000_000, 413),
        "millions of lists": (b'{"vectors": [' + b"[]," * 5_000_000 + b"[]]}", 413),
        "millions of numbers": (b'{"vectors": [[' + b"0," * 5_000_000 + b"0]]}", 413),
        "millions of fields": (b'{"a":0,' * 2_000_000, 413),
        "a number of a million digits": (b'{"vectors": [[' + b"9" * 1_000_000 + b"]]}", 422),
        "numbers that overflow": (b'{"vectors": [[1e999, -1e999]]}', 422),
        "a long string": (b'{"vectors": ["' + b"A" * 20_000_000 + b'"]}', 422),
        "no base64": (b'{"vectors": ["\\u0000\\n=="]}', 422),
        "a long id": (b'{"vectors": [null], "ids": ["' + b"i" * 5000 + b'"]}', 422),
        "a list for a model": (b'{"vectors": [null], "model": []}', 422),
        "a long fingerprint": (
            b'{"vectors": [null], "model": {"fingerprint": "' + b"0" * 5000 + b'"}}', 422,
        ),
        "none of an encoder": (b'{"vectors": [null]}', 422),
    }  # fmt: skip
    for name, (data, status) in texts.items():
        yield _of_vectors(f"JSON: {name}", data, json, status)
    shape = "{'descr': '<f4', 'fortran_order': False, 'shape': "
    headers: dict[str, tuple[str, bytes]] = {
        "no data": (shape + "(1, 8)}", b""),
        "too much data": (shape + "(1, 8)}", bytes(5_000_000)),
        "huge": (shape + "(4000000000, 4000000000)}", b""),
        "negative": (shape + "(-1, 8)}", bytes(32)),
        "of many axes": (shape + f"({'1, ' * 99})}}", bytes(4)),
        "of objects": ("{'descr': '|O', 'fortran_order': False, 'shape': (1, 1)}", b"\x80\x04N."),
        "of records": (
            "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1, 1)}", bytes(4),
        ),
        "a call": ("__import__('os').system('true')", b""),
        "deep": ("(" * 9000, b""),
    }  # fmt: skip
    npy = b"application/x-npy"
    for name, (header, data) in headers.items():
        head = b"\x93NUMPY\x02\x00" + len(header).to_bytes(4, "little") + header.encode()
        yield _of_vectors(f"npy: {name}", head + data, npy, 400)
    yield _of_vectors("npy: a header of 4 GB", b"\x93NUMPY\x02\x00\xff\xff\xff\xff", npy, 400)
    yield _of_vectors("npy: a picture", good_files()["png"], npy, 400)
    yield _of_vectors("a picture", good_files()["png"], b"image/png", 415)
    yield _of_vectors("Parquet", b"PAR1" * 9, b"application/vnd.apache.parquet", 415)


def _of_vectors(name: str, data: bytes, content_type: bytes, status: int) -> BadRequest:
    whole = post(data, content_type, target=b"/v1/annotate-vectors")
    return BadRequest(name, partial(_whole, whole), frozenset([status]))


def framing() -> Iterator[BadRequest]:
    """What is no HTTP, or does not keep to its own lengths."""
    png = good_files()["png"]
    plain = post(png, b"image/png")
    redirected = post(png, b"image/png", target=b"/v1/annotate/")
    length = b"Content-Length"
    get = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n"
    refused = (400, CLOSED)  # closed where so much was still being sent that the answer is lost
    kinds: dict[str, tuple[bytes, int | tuple[int, ...]]] = {
        "http/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", (421, *refused)),
        "http/0.9": (b"GET /\r\n\r\n", refused),
        "two hosts": (get + b"Host: example.org\r\n\r\n", 400),
        "half a bracket for a host": (
            redirected.replace(b"localhost", b"[::1"), (307, 400, 404, 421),
        ),
        "host with a port of letters": (
            redirected.replace(b"localhost", b"127.0.0.1:x"), (307, 400, 404, 421),
        ),
        "huge header": (get + b"X: " + b"y" * 200_000 + b"\r\n\r\n", refused),
        "huge target": (get.replace(b"/livez", b"/" + b"a" * 200_000) + b"\r\n", refused),
        "endless request line": (b"A" * 300_000, refused),
        "header without a colon": (get + b"nonsense\r\n\r\n", 400),
        "header with a zero": (get + b"X: a\0b\r\n\r\n", 400),
        "folded header": (get + b"X: a\r\n b\r\n\r\n", (200, 400)),
        "space before a colon": (get + b"X : a\r\n\r\n", 400),
        "two lengths": (plain.replace(length, length + b": 5\r\n" + length), 400),
        "negative length": (post(png, length=-1), 400),
        "length with a plus": (plain.replace(b"Length: ", b"Length: +"), 400),
        "length and chunked": (post(png, b"image/png", b"Transfer-Encoding: chunked"), 400),
        "unknown transfer encoding": (chunked(b"x").replace(b"chunked", b"gzip"), (400, 501)),
        "a length over the limit": (post(png, length=65 << 20), 413),
        "a length of 2^63": (post(png, length=2**63), 413),
        "a length of 5000 digits": (
            plain.replace(b"Length: ", b"Length: " + b"9" * 5000), (400, 413),
        ),
        "more than its length": (post(png, length=100), 422),
        "negative chunk": (chunked(b"-5\r\nabcde\r\n0\r\n\r\n"), refused),
        "chunk of 2^64": (chunked(b"ffffffffffffffffff\r\nabc"), (400, 408)),
        "chunk longer than it says": (chunked(b"3\r\nabcdef\r\n0\r\n\r\n"), refused),
        "endless chunk extension": (chunked(b"3;" + b"x" * 200_000 + b"\r\nabc\r\n"), refused),
        "endless trailer": (chunked(b"3\r\nabc\r\n0\r\n" + b"X: y\r\n" * 50_000), refused),
        "websocket": (get + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n", 200),
        "expects something else": (post(png, b"image/png", b"Expect: 200-maybe"), (200, 417)),
    }  # fmt: skip
    return _requests(kinds)


def cut_off() -> Iterator[BadRequest]:
    """Requests whose client goes away, or dawdles. The server waits for two seconds."""
    png = good_files()["png"]
    plain = post(png, b"image/png")
    unended = chunked(b"%x\r\n" % len(png) + png + b"\r\n")
    gone = frozenset({CLOSED})
    for part_of in (0.05, 0.5, 0.9, 0.999):
        cut = plain[: int(len(plain) * part_of)]
        yield BadRequest(f"hangs up at {part_of:.0%}", partial(_whole, cut), gone, hang_up=True)
    yield BadRequest("chunks without an end", partial(_whole, unended), gone, hang_up=True)
    yield BadRequest("half a chunk", partial(_whole, unended[:-500]), gone, hang_up=True)
    yield BadRequest("half a form", partial(_whole, form(part(png))[:-500]), gone, hang_up=True)
    yield BadRequest("nothing at all", partial(_whole, b""), gone, hang_up=True)
    late = frozenset({408})
    yield BadRequest("a body that stops", partial(_whole, plain[:-1]), late)
    yield BadRequest("chunks that stop", partial(_whole, unended), late)
    yield BadRequest("a form that stops", partial(_whole, form(part(png))[:-9]), late)
    yield BadRequest("a body drop by drop", partial(_slowly, plain, len(plain) - 60), late)
    # Without a request there is nobody to answer.
    yield BadRequest("silence", partial(_whole, b""), gone)
    yield BadRequest("headers drop by drop", partial(_slowly, plain, 0), gone)
    yield BadRequest("half a request line", partial(_whole, b"POST /v1/anno"), gone)


def _slowly(data: bytes, at_once: int) -> Pieces:
    yield data[:at_once]
    for byte in data[at_once:]:
        yield bytes([byte])
        yield 0.1
