"""Bad inputs, sent to one real server: each gets its problem, and the server goes on.

Held for every one: no 5xx, no stack trace and no path in the answer, errors in the documented form.
After each family: a good image is answered as before, and memory has stayed under `MAX_MIB`.
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bad_bombs
import bad_dicom
import bad_files
import bad_requests
import pytest
import schemathesis
from asking import ROOT, serving
from bad_files import ANY, BadFile, good_files
from bad_requests import CLOSED, BadRequest, Pieces, form, part, post
from hypothesis import given, settings
from hypothesis import strategies as st
from schemathesis import CheckFunction, GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

if TYPE_CHECKING:
    from annotator.encoders.embedder import Embedder

pytestmark = pytest.mark.slow

DOCS = ROOT / "docs" / "service.md"
# The network and its libraries, one image of 64 megapixels in colour with transparency, and the
# copies of it that conversions make: 1.7 GiB, and for a reason not found yet 2.0 GiB in the whole
# suite where the CPU has no bf16.
MAX_MIB = 2560
MEMBERS = {"type", "title", "status", "code", "detail", "hint"}
CODES = set(re.findall(r"`([a-z_]+)`", DOCS.read_text().split("### Errors")[1].split("\n## ")[0]))
LEAKS = re.compile(
    r"Traceback|File \"|\.py\b|site-packages|/tmp/|/usr/|/home/|Secret|0x[0-9a-f]{6}"
    rf"|{re.escape(str(ROOT))}"
)


def _dicoms() -> Iterator[BadFile]:
    for makes in (bad_dicom.wrong_headers, bad_dicom.hostile_syntaxes):
        for name, data in makes():
            yield BadFile(name, partial(bytes, data))
    for name, data in bad_dicom.broken_structure():
        yield BadFile(name, partial(bytes, data), ANY)


def _uploads(files: Callable[[], Iterable[BadFile]]) -> Iterator[BadRequest]:
    """Each file alone in a request, as the body and in a form by turns."""
    for number, file in enumerate(files()):
        yield BadRequest(file.name, partial(_upload, file, number % 2 == 1), file.statuses)


def _upload(file: BadFile, in_form: bool) -> Pieces:
    return [form(part(file.make())) if in_form else post(file.make())]


@cache
def family(name: str) -> list[BadRequest]:
    """The requests of a family."""
    return list(FAMILIES[name]())


#: What makes each family.
FAMILIES: dict[str, Callable[[], Iterator[BadRequest]]] = {
    "truncations": partial(_uploads, bad_files.truncations),
    "other types": partial(_uploads, bad_files.other_types),
    "noise": partial(_uploads, bad_files.noise),
    "polyglots": partial(_uploads, bad_files.polyglots),
    "gigapixels": partial(_uploads, bad_files.gigapixels),
    "PNG bombs": partial(_uploads, bad_bombs.png_bombs),
    "other bombs": partial(_uploads, bad_bombs.other_bombs),
    "TIFF": partial(_uploads, bad_bombs.tiff_bombs),
    "DICOM": partial(_uploads, _dicoms),
    "multipart": bad_requests.multipart,
    "file names": bad_requests.filenames,
    "queries": bad_requests.queries,
    "vectors": bad_requests.vectors,
    "framing": bad_requests.framing,
    "cut off": bad_requests.cut_off,
}


class Target:
    """The server, with what it answers to a good image."""

    def __init__(self, server: Any, good: bytes) -> None:
        self.server = server
        self._good = good
        self._expected = self.answer_to_the_good_image()

    def answer_to_the_good_image(self) -> dict[str, Any]:
        headers = {"Content-Type": "image/png"}
        answer = self.server.client.post("/v1/annotate", content=self._good, headers=headers)
        assert answer.status_code == 200, answer.text
        whole: dict[str, Any] = answer.json()
        del whole["timings"]
        return whole

    def check_it_goes_on(self) -> None:
        """A good image is answered as before, nothing is left over, and memory is in bounds."""
        assert self.answer_to_the_good_image() == self._expected
        assert self.memory() < MAX_MIB
        metrics = self.server.client.get("/metrics").text
        assert "annotator_admitted_images 0.0" in metrics.splitlines()

    def memory(self) -> int:
        """The most that was ever resident, in MiB."""
        status = Path(f"/proc/{self.server.process.pid}/status").read_text()
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) >> 10

    def send(self, request: BadRequest) -> tuple[int, http.client.HTTPMessage | None, bytes]:
        """Status, headers and body of the answer; `CLOSED` if there is none."""
        address = (self.server.host, self.server.port)
        pause = threading.Event()
        with socket.create_connection(address, timeout=40) as connection:
            try:
                for piece in request.pieces():
                    if isinstance(piece, float):
                        pause.wait(piece)
                    else:
                        connection.sendall(piece)
                if request.hang_up:
                    connection.shutdown(socket.SHUT_WR)
            except ConnectionError:
                pass  # it has answered already, and closed
            answer = http.client.HTTPResponse(connection)
            try:
                answer.begin()
                return answer.status, answer.headers, answer.read()
            except (http.client.BadStatusLine, ConnectionError):
                return CLOSED, None, b""

    def check(self, request: BadRequest) -> int:
        """Send it; the answer must be one of the right ones, and well formed."""
        status, headers, body = self.send(request)
        where = f"{request.name}: {status} {body[:500]!r}"
        assert status in request.statuses, where
        assert status < 500, where
        if status >= 400:
            assert headers is not None and headers["Content-Type"] == "application/problem+json", (
                where
            )
            assert headers["X-Content-Type-Options"] == "nosniff", where
            problem = json.loads(body)
            assert problem.keys() == MEMBERS and problem["status"] == status, where
            assert problem["code"] in CODES and problem["detail"], where
            assert not LEAKS.search(body.decode()), where
        return status


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory, encoder: Embedder) -> Iterator[Target]:
    from annotator.collection import read_collection
    from annotator.indexing.build import build_index
    from annotator.phantoms import write_sample

    folder = tmp_path_factory.mktemp("bad-inputs")
    sample = write_sample(folder / "sample", n=24)
    collection = read_collection(sample.images, sample.concepts)
    build_index(collection, folder / "index", encoder, use_cache=False)
    good = min(sample.images.glob("*.png")).read_bytes()
    with serving(folder / "index", read_timeout_s=2, timeout_s=30, workers=1) as server:
        yield Target(server, good)
        code, log = server.stop()
    assert code == 0
    assert not re.search("Traceback|unexpected error|Exception in|Fatal", log), log[-5000:]
    assert "Secret" not in log and "passwd" not in log


def test_there_are_enough() -> None:
    names = [(name, case.name) for name in FAMILIES for case in family(name)]
    assert len(set(names)) == len(names) >= 250


@pytest.mark.parametrize("name", FAMILIES)
def test_bad_inputs(target: Target, name: str) -> None:
    cases = family(name)
    # Those that wait do it together.
    with ThreadPoolExecutor(len(cases) if name == "cut off" else 1) as pool:
        list(pool.map(target.check, cases))
    target.check_it_goes_on()


def test_good_files_among_bad_ones(target: Target) -> None:
    good = good_files()
    broken = [data[: len(data) // 5] for data in good.values()]
    parts = [part(data) for pair in zip(good.values(), broken, strict=True) for data in pair]
    for start in range(0, len(parts), 30):
        request = form(*parts[start : start + 30])
        status, _, body = target.send(BadRequest("", partial(list, [request]), frozenset()))
        results = json.loads(body)["results"]
        assert status == 200
        assert [r["error"] is None for r in results] == [True, False] * (len(results) // 2)
        assert all(r["error"].keys() == MEMBERS for r in results[1::2])


CHANGES = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6
)


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(st.sampled_from(sorted(good_files())), CHANGES, st.booleans())
def test_changed_bytes(
    target: Target, name: str, changes: list[tuple[float, int]], in_front: bool
) -> None:
    data = bytearray(good_files()[name])
    reach = min(len(data), 600) if in_front else len(data)  # headers are what matters most
    for place, byte in changes:
        data[int(place * reach)] = byte
    statuses = frozenset({200, 413, 415, 422})
    target.check(BadRequest(name, lambda: [post(bytes(data))], statuses))


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(CHANGES)
def test_changed_bytes_of_a_form(target: Target, changes: list[tuple[float, int]]) -> None:
    request = bytearray(form(part(good_files()["jpeg"], b"Content-Type: image/jpeg")))
    body = request.index(b"\r\n\r\n") + 4
    for place, byte in changes:
        request[body + int(place * 150)] = byte
    statuses = frozenset({200, 400, 413, 415, 422})
    target.check(BadRequest("form", lambda: [bytes(request)], statuses))


@pytest.fixture(scope="module")
def described(target: Target) -> Any:
    return schemathesis.openapi.from_url(f"{target.server.url}/openapi.json")


OPERATIONS = [
    ("POST", "/v1/annotate"), ("POST", "/v1/annotate-vectors"), ("POST", "/v1/embed"),
    ("POST", "/v1/similar"), ("GET", "/v1/similar"),
    ("GET", "/v1/search"), ("POST", "/v1/reload"), ("GET", "/v1/info"), ("GET", "/v1/concepts"),
    ("GET", "/v1/neighbors/{id}/image"), ("GET", "/livez"), ("GET", "/readyz"),
    ("GET", "/metrics"),
    ("POST", "/v1/images"), ("GET", "/v1/images/{id}"), ("PATCH", "/v1/images/{id}"),
    ("DELETE", "/v1/images/{id}"), ("GET", "/v1/images"), ("GET", "/v1/queue"),
    ("GET", "/v1/annotate"), ("POST", "/v1/pictures"), ("GET", "/v1/pictures/{id}"),
    ("GET", "/v1/map"),
]  # fmt: skip
# The others take nothing that could be wrong.
FALLIBLE = [
    ("POST", "/v1/annotate"), ("POST", "/v1/annotate-vectors"), ("POST", "/v1/embed"),
    ("POST", "/v1/similar"), ("GET", "/v1/similar"),
    ("GET", "/v1/search"), ("GET", "/v1/concepts"),
    ("GET", "/v1/images"), ("GET", "/v1/queue"), ("GET", "/v1/annotate"), ("POST", "/v1/pictures"),
]  # fmt: skip
# Their parameters depend on each other, or on what the index has.
DEPENDENT = [("GET", "/v1/annotate"), ("GET", "/v1/pictures/{id}"), ("GET", "/v1/images")]


def test_all_operations_are_described(described: Any) -> None:
    operations = [result.ok() for result in described.get_all_operations()]
    assert {(o.method.upper(), o.path) for o in operations} == set(OPERATIONS)


@pytest.mark.parametrize(
    ("mode", "method", "path"),
    [(GenerationMode.POSITIVE, *operation) for operation in OPERATIONS]
    + [(GenerationMode.NEGATIVE, *operation) for operation in FALLIBLE],
)
def test_the_service_is_as_described(
    described: Any, mode: GenerationMode, method: str, path: str
) -> None:
    # A body that fits its schema is any bytes, and those are an image hardly ever; nor are lists of
    # numbers vectors of the index's encoder.
    uploads = method == "POST" and path != "/v1/reload"
    accepts_all = not uploads and (method, path) not in DEPENDENT
    excluded: list[CheckFunction] = [] if accepts_all else [positive_data_acceptance]

    @settings(max_examples=50, deadline=None, derandomize=True, database=None)
    @given(described[path][method].as_strategy(generation_mode=mode))
    def check(case: schemathesis.Case[Any]) -> None:
        answer = case.call_and_validate(excluded_checks=excluded)
        assert answer.status_code < 500

    check()


def test_afterwards(target: Target) -> None:
    target.check_it_goes_on()
