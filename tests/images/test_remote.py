"""Object stores: what a URL stands for, and the same images as from a disk."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from annotator.cli import cli
from annotator.errors import AnnotatorError, FormatError, ImageError
from annotator.images import ref as ref_module
from annotator.images import remote
from annotator.images.sources import find_images, parquet_concepts

fsspec = pytest.importorskip("fsspec")

DICOM_START = bytes(128) + b"DICM"
FILES = {
    "set/b.png": b"b",
    "set/a.JPG": b"a",
    "set/deep/c.tiff": b"c",
    "set/deep/IM1": DICOM_START,
    "set/deep/README": b"no DICOM",
    "set/notes.txt": b"notes",
    "set/.hidden/d.png": b"d",
    "set/__MACOSX/e.png": b"e",
    "setting/f.png": b"f",
    "list.txt": b"# a list\nset/b.png\n\nset/deep/../a.JPG\nset/gone.png\n",
}


def table(first: int) -> pa.Table:
    rows = range(first, first + 5)
    return pa.table(
        {
            "image": [{"bytes": f"image {i}".encode(), "path": f"i{i}.png"} for i in rows],
            "image_id": [f"i{i}" for i in rows],
            "caption": [f"caption {i}" for i in rows],
            "cui": [[f"C{i}", "C9"] for i in rows],
        }
    )


def write_all(root: str) -> None:
    for name, content in FILES.items():
        with fsspec.open(f"{root}/{name}", "wb") as file:
            file.write(content)
    for number in range(2):
        with fsspec.open(f"{root}/tables/part-{number}.parquet", "wb") as file:
            pq.write_table(table(5 * number), file, row_group_size=2)


@pytest.fixture(scope="module")
def memory() -> Iterator[str]:
    write_all("memory://store")
    yield "memory://store"
    fsspec.filesystem("memory").store.clear()


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """A bucket of a real S3 client over HTTP, with moto's server at its other end."""
    if "ANNOTATOR_REQUIRE_S3" not in os.environ:
        pytest.importorskip("s3fs")
        pytest.importorskip("moto.server")
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    patch = pytest.MonkeyPatch()
    patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        patch.setenv(name, "us-east-1")
    system = fsspec.filesystem("s3")
    system.mkdir("images")
    write_all("s3://images/some")
    yield "s3://images/some"
    system.clear_instance_cache()
    server.stop()
    patch.undo()


@pytest.fixture(params=["memory", "s3", "file"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "file":
        for name in FILES:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tables").mkdir()
        write_all(str(tmp_path))
        return f"file://{tmp_path}"
    return str(request.getfixturevalue(request.param))


def ids(spec: Any, **options: Any) -> list[str]:
    return [ref.id for ref in find_images(spec, **options).images]


def test_what_a_prefix_holds(root: str) -> None:
    found = find_images(f"{root}/set")
    assert [ref.id for ref in found.images] == ["IM1", "a", "b", "c"]
    assert [ref.read() for ref in found.images] == [DICOM_START, b"a", b"b", b"c"]
    assert found.images[1].where.startswith(root.partition("://")[0] + "://")
    assert found.images[1].where.endswith("/set/a.JPG")
    assert [path.rpartition("/")[2] for path in found.ignored] == ["README", "notes.txt"]
    assert ids(f"{root}/set/") == ids(f"{root}/set")


def test_ids_by_path(root: str) -> None:
    assert ids(f"{root}/set", id_from="path") == ["a", "b", "deep/IM1", "deep/c"]
    assert ids(f"{root}/set*/*.png", id_from="path") == ["set/b", "setting/f"]
    assert ids(f"{root}/list.txt", id_from="path") == ["set/a", "set/b", "set/gone"]


def test_headers(root: str, dicom_tree: Path) -> None:
    for path in dicom_tree.rglob("*"):
        if path.is_file():
            system, place = fsspec.core.url_to_fs(f"{root}/copy/{path.relative_to(dicom_tree)}")
            if root.startswith("file://"):
                system.makedirs(place.rpartition("/")[0], exist_ok=True)
            system.pipe_file(place, path.read_bytes())
    found = find_images(f"{root}/copy", where={"Modality": ["CR"]}, group_by="PatientID")
    local = find_images(dicom_tree, where={"Modality": ["CR"]}, group_by="PatientID")
    assert found.groups == local.groups and len(found.groups) == 4
    assert len(found.without_pixels) == len(local.without_pixels) == 2
    assert [ref.id for ref in found.images] == [ref.id for ref in local.images]


def test_patterns_files_lists_and_mixtures(root: str, tmp_path: Path) -> None:
    assert ids(f"{root}/set/*.png") == ["b"]
    assert ids(f"{root}/set/**/*.tiff") == ["c"]
    assert ids(f"{root}/set*/*.png") == ["b", "f"]
    assert ids(f"{root}/set/deep/IM1") == ["IM1"]
    (tmp_path / "x.png").write_bytes(b"x")
    (tmp_path / "mixed.txt").write_text(f"x.png\n{root}/set/b.png\n")
    assert ids(tmp_path / "mixed.txt") == ["b", "x"]
    assert ids([tmp_path / "x.png", f"{root}/set"]) == ["IM1", "a", "b", "c", "x"]
    listed = find_images(f"{root}/list.txt").images
    assert [ref.id for ref in listed] == ["a", "b", "gone"]
    assert listed[0].read() == b"a"
    with pytest.raises(ImageError, match=r"^no such file\n"):
        listed[2].read()


def test_parquet(root: str) -> None:
    spec = f"{root}/tables/part-*.parquet"
    images = find_images(spec).images
    assert [ref.id for ref in images] == [f"i{i}" for i in range(10)]
    assert [ref.read() for ref in images] == [f"image {i}".encode() for i in range(10)]
    assert images[7].where.endswith("tables/part-1.parquet row 2")
    concepts, captions = parquet_concepts(spec)
    assert concepts["i3"] == ("C3", "C9")
    assert captions["i9"] == "caption 9"
    with fsspec.open(f"{root}/bad.parquet", "wb") as file:
        file.write(b"PAR1 no more")
    with pytest.raises(FormatError, match=r"bad\.parquet cannot be read as a Parquet file"):
        find_images(f"{root}/bad.parquet")


def test_what_is_not_there(root: str) -> None:
    with pytest.raises(AnnotatorError, match=r"no such file or prefix: .*/nothing") as caught:
        find_images(f"{root}/nothing")
    assert caught.value.hint
    with pytest.raises(AnnotatorError, match=r"no image found in .*bmp"):
        find_images(f"{root}/*.bmp")


def test_a_bucket_and_a_file_that_are_not_there(s3: str) -> None:
    with pytest.raises(AnnotatorError, match="s3://none-of-ours/x"):
        find_images("s3://none-of-ours/x")
    refs = find_images(f"{s3}/set").images
    system = fsspec.filesystem("s3")
    system.rm("images/some/set/b.png")
    try:
        with pytest.raises(ImageError, match=r"^no such file\n"):
            refs[2].read()
    finally:
        with fsspec.open(f"{s3}/set/b.png", "wb") as file:
            file.write(b"b")


def test_too_large_is_refused_before_it_is_read(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (ref,) = find_images(f"{root}/set/deep/IM1").images
    monkeypatch.setattr(ref_module, "MAX_BYTES", 100)
    with pytest.raises(ImageError, match="132 bytes are over the limit of 100") as caught:
        ref.read()
    assert caught.value.code == "too_large"


@pytest.mark.slow
def test_the_same_index_from_an_object_store(
    s3: str, tmp_path: Path, draw: Callable[[Path, int, int], None]
) -> None:
    """Through the command; what is wrong with an image is said with its URL."""
    (tmp_path / "images").mkdir()
    for i in range(20):
        draw(tmp_path / "images" / f"i{i:02}.png", i % 3, i)
    (tmp_path / "images" / "i04.png").write_bytes(b"no image")
    rows = "".join(f"i{i:02},C{i % 3}\n" for i in range(20))
    (tmp_path / "concepts.csv").write_text(f"ID,CUIs\n{rows}")
    system = fsspec.filesystem("s3")
    system.put(str(tmp_path / "images"), "images/drawn", recursive=True)
    vectors = []
    for images in (tmp_path / "images", "s3://images/drawn"):
        index = tmp_path / f"index{len(vectors)}"
        given = ["build-index", str(images), str(tmp_path / "concepts.csv"), "--index", str(index)]
        built = CliRunner().invoke(cli, [*given, "--workers", "2"])
        assert built.exit_code == 3, built.stderr
        assert f"    {images}/i04.png\n" in built.stderr
        vectors.append((max(index.glob("v*")) / "vectors.npy").read_bytes())
    assert vectors[0] == vectors[1]


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.split(".")[0] == "gcsfs"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(AnnotatorError, match="gs:// needs a package") as caught:
        find_images("gs://bucket/images")
    assert 'pip install "cui-annotator[remote]"' in caught.value.hint
    with pytest.raises(AnnotatorError, match="nosuchstore://x"):
        find_images("nosuchstore://x/y")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("s3://b/k", True),
        ("gs://b", True),
        ("file:///x", True),
        ("/a/b://c", False),
        ("a.png", False),
        ("s3:/b/k", False),
    ],
)
def test_is_url(name: str, expected: bool) -> None:
    assert remote.is_url(name) is expected
