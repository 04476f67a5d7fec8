"""The cache: bit-exact, shared between threads and processes, and never a wrong vector."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from annotator.encoders.cache import EmbeddingCache, content_key, is_unit_vector
from annotator.errors import AnnotatorError

ONE, TWO = "11" * 32, "22" * 32


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache.sqlite"


def vector(seed: int, dim: int = 8) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(dim).astype(np.float32)


def key(seed: int) -> bytes:
    return content_key(str(seed).encode())


def run(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@given(arrays(np.uint32, st.integers(1, 40)))
@settings(deadline=None, max_examples=40)
def test_round_trip_is_bit_exact(bits: NDArray[np.uint32]) -> None:
    """Every float32 there is, infinities and NaN included."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "new" / "cache.sqlite"
        with EmbeddingCache(file, ONE) as cache:
            cache.put([(key(1), bits.view(np.float32))])
        with EmbeddingCache(file, ONE) as cache:
            known = cache.get(key(1))
    assert known is not None
    assert known.dtype == np.float32
    assert known.flags.writeable
    np.testing.assert_array_equal(known.view(np.uint32), bits)


def test_other_content_and_other_fingerprints_are_apart(path: Path) -> None:
    with EmbeddingCache(path, ONE) as one, EmbeddingCache(path, TWO) as two:
        one.put([(key(1), vector(1))])
        assert key(1) == hashlib.sha256(b"1").digest()
        assert one.get(key(2)) is None
        assert two.get(key(1)) is None
        two.put([(key(1), vector(2))])
        np.testing.assert_array_equal(one.get(key(1)), vector(1))
        np.testing.assert_array_equal(two.get(key(1)), vector(2))


def test_put_is_all_or_nothing_and_the_last_one_counts(path: Path) -> None:
    def items() -> Iterator[tuple[bytes, NDArray[np.float32]]]:
        yield key(1), vector(1)
        raise KeyError("by design")

    with EmbeddingCache(path, ONE) as cache:
        with pytest.raises(KeyError):
            cache.put(items())
        assert cache.get(key(1)) is None
        cache.put([(key(1), vector(1))])
        cache.put([(key(1), vector(2)), (key(2), vector(3))])
        cache.put([])
        np.testing.assert_array_equal(cache.get(key(1)), vector(2))
        np.testing.assert_array_equal(cache.get(key(2)), vector(3))


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param("vector = zeroblob(length(vector))", id="zeroed"),
        pytest.param("vector = substr(vector, 1, length(vector) - 4)", id="shortened"),
        pytest.param("vector = x''", id="emptied"),
        pytest.param("vector = NULL", id="null"),
        pytest.param("vector = 'text'", id="text"),
        pytest.param("checksum = checksum + 1", id="checksum"),
        pytest.param("checksum = NULL", id="no checksum"),
    ],
)
def test_a_damaged_row_is_a_miss_and_can_be_replaced(path: Path, damage: str) -> None:
    with EmbeddingCache(path, ONE) as cache:
        cache.put([(key(i), vector(i)) for i in range(3)])
    database = sqlite3.connect(path)
    with database:
        changed = database.execute(f"UPDATE vectors SET {damage} WHERE content = ?", (key(1),))
        assert changed.rowcount == 1
    database.close()
    with EmbeddingCache(path, ONE) as cache:
        assert cache.get(key(1)) is None
        np.testing.assert_array_equal(cache.get(key(2)), vector(2))
        cache.put([(key(1), vector(1))])
        np.testing.assert_array_equal(cache.get(key(1)), vector(1))


def test_many_threads(path: Path) -> None:
    def work(worker: int) -> None:
        for i in range(worker * 50, worker * 50 + 50):
            cache.put([(key(i), vector(i))])
            other = (i * 7) % 400
            known = cache.get(key(other))
            if known is not None:
                np.testing.assert_array_equal(known, vector(other))

    with EmbeddingCache(path, ONE) as cache:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))
        for i in range(400):
            np.testing.assert_array_equal(cache.get(key(i)), vector(i))


WRITER = """
    import sys
    from pathlib import Path
    import numpy as np
    from annotator.encoders.cache import EmbeddingCache, content_key, is_unit_vector

    start = int(sys.argv[2])
    print("ready", flush=True)
    sys.stdin.readline()
    with EmbeddingCache(Path(sys.argv[1]), "11" * 32) as cache:
        for i in range(start, start + 200):
            vector = np.random.default_rng(i).standard_normal(8).astype(np.float32)
            cache.put([(content_key(str(i).encode()), vector)])
"""


def test_processes_share_a_new_file(path: Path) -> None:
    """They open it at the same moment, and none of them is turned away."""
    processes = [run(WRITER, path, start) for start in (0, 200, 400)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == 0, stderr
    with EmbeddingCache(path, ONE) as cache:
        for i in range(600):
            np.testing.assert_array_equal(cache.get(key(i)), vector(i))


def test_opening_waits_for_another_process(path: Path) -> None:
    """SQLite itself does not wait for this lock when the journal's mode changes."""
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    timer = threading.Timer(0.3, other.execute, ["COMMIT"])
    timer.start()
    with EmbeddingCache(path, ONE) as cache:
        cache.put([(key(1), vector(1))])
        np.testing.assert_array_equal(cache.get(key(1)), vector(1))
    timer.join()
    other.close()


KILLED = """
    import sys
    from pathlib import Path
    import numpy as np
    from annotator.encoders.cache import EmbeddingCache, content_key, is_unit_vector

    with EmbeddingCache(Path(sys.argv[1]), "11" * 32) as cache:
        for batch in range(10**9):
            numbers = range(batch * 50, batch * 50 + 50)
            cache.put(
                (content_key(str(i).encode()), np.full(4096, i, np.float32)) for i in numbers
            )
            print(batch, flush=True)
"""


def test_a_killed_process_leaves_a_readable_cache(path: Path) -> None:
    for attempt in range(4):
        process = run(KILLED, path)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.03 * attempt)
        process.kill()
        stdout, _ = process.communicate(timeout=60)
        done = 1 + len([line for line in stdout.split("\n") if line][:-1])
        with EmbeddingCache(path, ONE) as cache:
            for batch in range(done + 2):
                known = [cache.get(key(i)) for i in range(batch * 50, batch * 50 + 50)]
                there = [v is not None for v in known]
                assert all(there) or (not any(there) and batch >= done)
                for i, value in enumerate(known):
                    assert value is None or np.all(value == batch * 50 + i)
            cache.put([(key(-1), vector(1))])
        path.unlink()


@pytest.mark.parametrize("content", [b"ID,CUIs\n" * 500, b"SQLite format 3\0" + b"\xff" * 9000])
def test_a_file_that_is_not_sqlite(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(AnnotatorError, match="cannot be used") as error:
        EmbeddingCache(path, ONE)
    assert str(path) in error.value.message
    assert "--no-cache" in error.value.hint
    assert path.read_bytes() == content


def test_a_folder_that_is_a_file_and_another_database(path: Path) -> None:
    sqlite3.connect(path).execute("CREATE TABLE vectors (name TEXT)").connection.close()
    with EmbeddingCache(path, ONE) as cache, pytest.raises(AnnotatorError, match="cannot be used"):
        cache.get(key(1))
    with pytest.raises(AnnotatorError, match="cannot be used"):
        EmbeddingCache(path / "cache.sqlite", ONE)


def test_a_full_disk_is_a_warning(path: Path) -> None:
    with EmbeddingCache(path, ONE) as cache:
        cache.put([(key(0), vector(0))])
        (pages,) = cache._db.execute("PRAGMA page_count").fetchone()
        cache._db.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.warns(RuntimeWarning, match="cannot be written .*full.*not kept"):
            cache.put([(key(i), vector(i, 1000)) for i in range(1, 20)])
        cache.put([(key(1), vector(1))])  # says it once
        assert cache.get(key(1)) is None
        np.testing.assert_array_equal(cache.get(key(0)), vector(0))


def test_what_cannot_be_a_vector_of_an_encoder() -> None:
    unit = np.array([0.6, 0.8], np.float32)
    assert is_unit_vector(unit, 2) and not is_unit_vector(unit, 3)
    for wrong in (unit * 2, unit * 0, np.array([np.nan, 1], np.float32), unit[:1]):
        assert not is_unit_vector(wrong, 2)


READER = """
    import os, sys
    from pathlib import Path
    from annotator.encoders.cache import EmbeddingCache
    from annotator.errors import AnnotatorError

    if os.geteuid() == 0:
        os.setuid(65534)  # to root nothing is read-only
    try:
        EmbeddingCache(Path(sys.argv[1]), "11" * 32)
    except AnnotatorError as error:
        print(error.message)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="access rights of POSIX")
def test_a_read_only_folder() -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        folder.chmod(0o555)
        process = run(READER, folder / "cache.sqlite")
        stdout, stderr = process.communicate(timeout=60)
        assert f"The embedding cache {folder / 'cache.sqlite'} cannot be used" in stdout, stderr
    finally:
        shutil.rmtree(folder)


# Forgetting


def test_what_is_forgotten_is_gone_for_every_encoder_and_from_the_file(path: Path) -> None:
    with EmbeddingCache(path, ONE) as one, EmbeddingCache(path, TWO) as two:
        for cache, shift in ((one, 0), (two, 100)):
            cache.put([(key(i), vector(i + shift, 64)) for i in range(40)])
        one.forget([key(3), key(7), key(999)])
        for cache, shift in ((one, 0), (two, 100)):
            for i in range(40):
                known = cache.get(key(i))
                assert (known is None) == (i in (3, 7))
                assert known is None or np.array_equal(known, vector(i + shift, 64))
        left = b"".join(p.read_bytes() for p in path.parent.glob(f"{path.name}*"))
        for i in (3, 7, 103, 107):
            assert vector(i, 64).tobytes() not in left
        assert key(3) not in left and key(4) in left
        assert vector(4, 64).tobytes() in left and vector(104, 64).tobytes() in left


def test_nothing_forgotten_is_nothing_lost(path: Path) -> None:
    with EmbeddingCache(path, ONE) as cache:
        cache.forget([key(1)])
        cache.put([(key(1), vector(1))])
        cache.forget([])
        np.testing.assert_array_equal(cache.get(key(1)), vector(1))
        cache.forget([key(1)])
        cache.put([(key(1), vector(2))])  # it may come back
        np.testing.assert_array_equal(cache.get(key(1)), vector(2))


def test_notes_go_with_their_vectors(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite"
    with EmbeddingCache(path, "aa" * 32) as cache:
        cache.put([(key(1), vector(1)), (key(2), vector(2))], {key(1): ("window_ignored",)})
        assert cache.notes(key(1)) == ("window_ignored",)
        assert cache.notes(key(2)) == cache.notes(key(3)) == ()
    with EmbeddingCache(path, "bb" * 32) as other:
        assert other.notes(key(1)) == ()
    with EmbeddingCache(path, "aa" * 32) as again:
        assert again.notes(key(1)) == ("window_ignored",)
        again.forget([key(1)])
        assert again.notes(key(1)) == ()
