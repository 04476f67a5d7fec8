"""What an archive may say, also a hostile one; tests/integrations asks a real one."""

from __future__ import annotations

import base64
import json
import pickle
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from annotator.encoders.cache import EmbeddingCache
from annotator.encoders.local_runner import embed_images
from annotator.encoders.torch_embedder import TorchEmbedder
from annotator.errors import AnnotatorError, ImageError
from annotator.images import dicomweb, ref
from annotator.images.dicomweb import Address, Instance
from annotator.images.sources import find_images

pytest.importorskip("dicomweb_client", reason="the extra `dicomweb` is not installed")

CT, SR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.88.11"


def record(uid: str, *, sop_class: str = CT, patient: str = "P") -> dict[str, Any]:
    """An instance as a search answers it."""
    return {
        "00080016": {"vr": "UI", "Value": [sop_class]},
        "00080018": {"vr": "UI", "Value": [uid]},
        "0020000D": {"vr": "UI", "Value": ["1.2"]},
        "0020000E": {"vr": "UI", "Value": ["1.2.3"]},
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": f"Name of^{patient}"}]},
        "00100020": {"vr": "LO", "Value": [patient]},
    }


class Archive:
    """Answers searches with `records` and other requests with `files` by SOPInstanceUID.

    Attributes:
        cap: Most records in an answer.
        pages: Whether it knows of offsets.
        asked: Path and query of each request, with its headers.
    """

    def __init__(self) -> None:
        self.records: list[Any] = []
        self.files: dict[str, tuple[int, str, bytes]] = {}
        self.cap, self.pages = 1000, True
        self.search_status, self.search_body = 200, None
        self.asked: list[tuple[str, dict[str, str]]] = []
        archive = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                archive.asked.append((self.path, dict(self.headers)))
                parts = urlsplit(self.path)
                if parts.path.endswith("/instances"):
                    kind, body = "application/dicom+json", archive.found(parse_qs(parts.query))
                    status = archive.search_status
                else:
                    missing = (404, "text/plain", b"")
                    uid = parts.path.removesuffix("/metadata").rpartition("/")[2]
                    status, kind, body = archive.files.get(uid, missing)
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.address = f"dicomweb+http://127.0.0.1:{self._server.server_port}/dicom-web"

    def found(self, query: dict[str, list[str]]) -> bytes:
        if self.search_body is not None:
            return self.search_body
        offset = int(query.get("offset", ["0"])[0]) if self.pages else 0
        wanted = min(self.cap, int(query.get("limit", ["1000"])[0]))
        return json.dumps(self.records[offset : offset + wanted]).encode()

    def hold(self, uid: str, file: bytes) -> None:
        """Have an image."""
        self.records.append(record(uid))
        body = b"--b\r\nContent-Type: application/dicom\r\n\r\n" + file + b"\r\n--b--\r\n"
        self.files[uid] = (200, 'multipart/related; type="application/dicom"; boundary=b', body)

    def retrieved(self) -> int:
        """Number of requests for files."""
        return sum("/instances/" in path for path, _ in self.asked)

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def archive(monkeypatch: pytest.MonkeyPatch) -> Iterator[Archive]:
    for name in (dicomweb.USER, dicomweb.PASSWORD, dicomweb.TOKEN):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(dicomweb, "_RETRIES", 0)
    started = Archive()
    yield started
    for connection in dicomweb._of_thread.__dict__.pop("connections", {}).values():
        connection.session.close()
    started.close()


@pytest.fixture
def file(tmp_path: Path, write_dicom: Callable[..., str]) -> Callable[[int], bytes]:
    def file(seed: int) -> bytes:
        write_dicom(tmp_path / "one.dcm", seed=seed)
        return (tmp_path / "one.dcm").read_bytes()

    return file


def ids(address: str, **options: Any) -> list[str]:
    return [image.id for image in find_images(address, **options).images]


def test_addresses() -> None:
    assert Address.of("dicomweb://pacs.example.org/dicom-web/?Modality=DX&Modality=CR&limit=9") == (
        Address(
            "https://pacs.example.org/dicom-web",
            filters=(("Modality", ("DX", "CR")),),
            limit=9,
        )
    )
    assert Address.of("dicomweb+http://h:8042/a/b/studies/1.2/series/3.4?00100020=P%201") == (
        Address("http://h:8042/a/b", "1.2", "3.4", (("PatientID", ("P 1",)),))
    )
    one = Address.of("dicomweb://h/studies/1.2/series/3.4/instances/5.6?fuzzymatching=true")
    assert one == Address("https://h", "1.2", "3.4", (("SOPInstanceUID", ("5.6",)),), fuzzy=True)


@pytest.mark.parametrize(
    ("address", "complaint", "hint"),
    [
        ("dicomweb:///dicom-web", "names no host", "such as"),
        ("dicomweb://h/a?Modaliti=DX", "no attribute with the keyword 'Modaliti'", "Modality"),
        ("dicomweb://h/a?PixelData=1", "holds no text", "Modality"),
        ("dicomweb://h/a/studies/x", "'x' is no UID", "such as"),
        ("dicomweb://h/a?limit=0", "no number of images", "limit=100"),
    ],
)
def test_wrong_addresses(address: str, complaint: str, hint: str) -> None:
    with pytest.raises(AnnotatorError, match=complaint) as caught:
        Address.of(address)
    assert hint in caught.value.hint


def test_a_password_in_an_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(AnnotatorError) as caught:
        Address.of("dicomweb://ada:tiger@h/a")
    assert "tiger" not in str(caught.value) and dicomweb.PASSWORD in caught.value.hint


def test_ids_are_uids_and_nothing_is_fetched(archive: Archive) -> None:
    archive.records = [record("1.10"), record("1.9"), record("1.8", sop_class=SR)]
    found = find_images(f"{archive.address}?Modality=CT", group_by="PatientName")
    assert [image.id for image in found.images] == ["1.9", "1.10"]
    assert found.images[0].where == f"{archive.address}/studies/1.2/series/1.2.3/instances/1.9"
    assert found.without_pixels == [f"{archive.address}/studies/1.2/series/1.2.3/instances/1.8"]
    assert found.groups == {"1.9": "Name of^P", "1.10": "Name of^P"}
    assert archive.retrieved() == 0
    query = parse_qs(urlsplit(archive.asked[0][0]).query)
    assert query["Modality"] == ["CT"] and "PatientName" in query["includefield"]


def test_images_are_chosen_by_their_attributes(archive: Archive) -> None:
    archive.records = [record("1.1", patient="A"), record("1.2", patient="B")]
    assert ids(archive.address, where={"PatientID": ["b"]}) == ["1.2"]
    assert archive.retrieved() == 0


@pytest.mark.parametrize("cap", [1, 3, 1000])
@pytest.mark.parametrize("pages", [True, False])
def test_pages_of_any_size(archive: Archive, cap: int, pages: bool) -> None:
    """An archive that knows no offsets says the same again and again."""
    archive.records = [record(f"1.{i}") for i in range(1, 8)]
    archive.cap, archive.pages = cap, pages
    found = [f"1.{i}" for i in range(1, 8 if pages else 1 + min(7, cap))]
    assert ids(archive.address) == found
    assert ids(f"{archive.address}?limit=2") == found[:2]


def test_two_queries_may_find_the_same(archive: Archive) -> None:
    archive.records = [record("1.1"), record("1.2")]
    assert ids([archive.address, f"{archive.address}/studies/1.2"]) == ["1.1", "1.2"]  # type: ignore[arg-type]


def test_what_is_no_uid_is_never_asked_for(archive: Archive) -> None:
    archive.records = [record("../../../system"), record("1.1"), record("1.2/x"), {}, {"x": 1}]
    assert ids(archive.address) == ["1.1"]


@pytest.mark.parametrize(
    ("status", "body", "complaint"),
    [
        (500, b"", "answers 500"),
        (401, b"", "does not let us"),
        (404, b"", "nothing there"),
        (200, b"<html>", "cannot be read"),
        (200, b'["x"]', "cannot be read"),
    ],
)
def test_searches_that_fail(archive: Archive, status: int, body: bytes, complaint: str) -> None:
    archive.search_status, archive.search_body = status, body
    with pytest.raises(AnnotatorError, match=complaint) as caught:
        ids(archive.address)
    assert caught.value.hint


def test_an_archive_that_is_not_there() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dicomweb, "_RETRIES", 0)
        with pytest.raises(AnnotatorError, match="cannot be reached"):
            ids("dicomweb+http://127.0.0.1:9/dicom-web")


def test_files_come_as_they_are_stored(archive: Archive, file: Callable[[int], bytes]) -> None:
    archive.hold("1.1", file(1))
    (image,) = find_images(archive.address).images
    assert image.read() == file(1)
    assert "transfer-syntax=*" in archive.asked[-1][1]["Accept"]
    assert pickle.loads(pickle.dumps(image)).read() == file(1)
    archive.files["1.1"] = (200, "application/dicom", file(2))  # some send no parts
    assert image.read() == file(2)


def test_one_bad_instance_costs_the_others_nothing(
    archive: Archive,
    file: Callable[[int], bytes],
    tiny_embedder: TorchEmbedder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ref, "MAX_BYTES", 10_000)
    monkeypatch.setattr(dicomweb, "MAX_BYTES", 10_000)
    for i in range(1, 7):
        archive.hold(f"1.{i}", file(i))
    kind = archive.files["1.1"][1]
    archive.files["1.2"] = (404, "text/plain", b"")
    archive.files["1.3"] = (200, kind, b"--b\r\n\r\n" + b"x" * 100)  # cut off
    archive.files["1.4"] = (200, kind, b"--b\r\n\r\n" + b"x" * 20_000 + b"\r\n--b--\r\n")
    archive.files["1.5"] = (200, "text/html", b"<html>please log in</html>")
    done = list(embed_images(find_images(archive.address).images, tiny_embedder, workers=2))
    codes = {one.ref.id: one.error and one.error.code for one in done}
    assert codes == {
        "1.1": None,
        "1.2": "unreadable",
        "1.3": "broken",
        "1.4": "too_large",
        "1.5": "unknown_format",
        "1.6": None,
    }


def test_what_was_embedded_is_not_fetched_again(
    archive: Archive, file: Callable[[int], bytes], tiny_embedder: TorchEmbedder, tmp_path: Path
) -> None:
    for i in range(1, 4):
        archive.hold(f"1.{i}", file(i))
    images = find_images(archive.address).images
    with EmbeddingCache(tmp_path / "c.sqlite", tiny_embedder.fingerprint.digest) as cache:
        first = list(embed_images(images[:2], tiny_embedder, cache=cache, workers=1))
        assert archive.retrieved() == 2
        second = list(embed_images(images, tiny_embedder, cache=cache, workers=1))
        assert archive.retrieved() == 3
        assert [one.cached for one in second] == [True, True, False]
        assert [one.content for one in second[:2]] == [one.content for one in first]
        cache.forget([first[0].content])
        list(embed_images(images, tiny_embedder, cache=cache, workers=1))
        assert archive.retrieved() == 4


def test_credentials_come_from_the_environment_alone(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    archive.records = [record("1.1")]
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login ada password tiger\n")
    monkeypatch.setenv("HOME", str(tmp_path))

    def authorization(**environment: str) -> str | None:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            ids(archive.address)
        return archive.asked[-1][1].get("Authorization")

    assert authorization() is None
    assert authorization(**{dicomweb.TOKEN: "abc"}) == "Bearer abc"
    basic = authorization(**{dicomweb.USER: "ada", dicomweb.PASSWORD: "tiger"})
    assert basic == f"Basic {base64.b64encode(b'ada:tiger').decode()}"


def test_attributes_that_cannot_be_read(archive: Archive) -> None:
    instance = Instance(Address.of(archive.address).base, "1.2", "1.2.3", "1.1")
    archive.files["1.1"] = (200, "application/dicom+json", b"[]")
    with pytest.raises(ImageError, match="its attributes"):
        instance.header()
