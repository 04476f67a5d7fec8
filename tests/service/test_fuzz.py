"""Rubbish, and good things with a part of them changed, for what reads the bytes of strangers.

`ANNOTATOR_FUZZ_EXAMPLES` makes it longer: 20,000 take some minutes.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from index import IndexProblem, open_index
from index.search.build import KINDS
from service.problems import Problem
from service.uploads import MultipartReader
from tests.index.indexes import publish, replace_file, unit

EXAMPLES = int(os.environ.get("ANNOTATOR_FUZZ_EXAMPLES", "60"))
LONG: Any = {
    "max_examples": EXAMPLES,
    "deadline": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
}

PIECES = st.lists(
    st.sampled_from(
        [
            b"--B", b"--B--", b"\r\n", b"\n", b"\r", b"--", b" ", b"\t", b":", b";", b"x" * 70,
            b"Content-Disposition: form-data", b'; name="a"', b'; filename="b.png"', b"\r\n\r\n",
            b"Content-Type: image/png", b"\0", b"\xff", b"Content-Disposition", b'"', b"\\",
        ]
    )
    | st.binary(max_size=6),
    max_size=40,
).map(b"".join)  # fmt: skip


@settings(**LONG)
@given(PIECES, st.integers(1, 30), st.booleans())
def test_forms(body: bytes, size: int, begins: bool) -> None:
    """However a body is cut, the same comes of it: files, or a problem of the client's."""
    if begins:
        body = b'--B\r\nContent-Disposition: form-data; name="a"; filename="b"\r\n\r\n' + body

    def read(size: int) -> Any:
        reader = MultipartReader(b"B", 3, lambda n: None)
        try:
            for start in range(0, len(body), size):
                reader.write(body[start : start + size])
            return reader.close()
        except Problem as problem:
            assert problem.status in (400, 413)
            return problem.code, problem.detail

    assert read(size) == read(len(body) or 1)


@pytest.fixture(scope="module", params=KINDS)
def pristine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("fuzz") / "index"
    rows = 60
    publish(
        directory,
        unit(rows, 70),
        ids=[f"i{n}" for n in range(rows)],
        concepts=[[f"C{n % 5}"] for n in range(rows)],
        names={"C1": "one"},
        columns={"captions": [f"c{n}" for n in range(rows)]},
        about={},
        index_type=request.param,
    )
    return directory


@settings(**LONG)
@given(st.data())
def test_indexes(pristine: Path, tmp_path: Path, data: st.DataObject) -> None:
    """A changed file with the right checksum: opened and searched, or an IndexProblem."""
    directory = tmp_path / "changed"
    shutil.rmtree(directory, ignore_errors=True)
    shutil.copytree(pristine, directory)
    version = next(path for path in directory.iterdir() if path.is_dir())
    names = sorted(p.name for p in version.iterdir() if p.name != "manifest.json")
    # FAISS reserves what its length fields say, which here could be all memory there is.
    name = data.draw(st.sampled_from([n for n in names if not n.endswith(".faiss")]))
    content = bytearray((version / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, min(len(content) - 1, 400)))
        content[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
        if not content:
            break
    replace_file(directory, name, bytes(content))
    try:
        open_index(directory).find(unit(2, 70), 3)
    except IndexProblem as problem:
        assert problem.message
