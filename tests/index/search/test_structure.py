"""What the kinds of index keep beside the vectors: the same each time, believed if it fits."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from index import FlatIndex, IndexProblem, VersionWriter, open_index
from index.manifest import SEARCH_FILES, read_manifest
from index.progress import reported_by
from index.search.base import VectorIndex
from index.search.build import KINDS, Kind, lists_for, make_structure, open_structure
from index.search.pca_scan import ScanIndex
from index.search.scan_table import ScanTable, fit_axes, fit_table

Floats = NDArray[np.float32]
APPROXIMATE: tuple[Kind, ...] = ("hnsw", "ivf", "compressed")
N, DIM, K = 3000, 48, 50


def clustered(n: int = N, dim: int = DIM, seed: int = 0, clusters: int = 40) -> Floats:
    """Vectors around some centres, which are the same for every seed."""
    centres = np.random.default_rng(99).standard_normal((clusters, dim))
    rng = np.random.default_rng(seed)
    vectors = centres[rng.integers(clusters, size=n)] + 0.5 * rng.standard_normal((n, dim))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32)


def recall(index: VectorIndex, vectors: Floats, queries: Floats) -> float:
    """The share of the 50 nearest by brute force that the index finds."""
    similarities = queries.astype(np.float64) @ vectors.T.astype(np.float64)
    true = np.argsort(-similarities, axis=1)[:, :K]
    found = index.search(queries, K).rows
    hits = [len(set(a) & set(b)) for a, b in zip(true.tolist(), found.tolist(), strict=True)]
    return sum(hits) / true.size


@pytest.fixture(scope="module")
def vectors() -> Floats:
    return clustered()


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_vectors_give_the_same_bytes(kind: Kind, vectors: Floats, tmp_path: Path) -> None:
    made: list[Any] = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        params = make_structure(kind, vectors.copy(), tmp_path / name)
        files = {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        assert set(files) == set(SEARCH_FILES[kind])
        made.append((params, files))
    assert made[0] == made[1]
    assert json.loads(json.dumps(made[0][0])) == made[0][0]


@pytest.mark.parametrize("kind", KINDS)
def test_mapped_vectors_give_the_same_as_those_in_memory(
    kind: Kind, vectors: Floats, tmp_path: Path
) -> None:
    few = vectors[:500].copy()
    np.save(tmp_path / "vectors.npy", few)
    mapped = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    made = []
    for name, given_ in (("one", few), ("other", mapped)):
        (tmp_path / name).mkdir()
        params = make_structure(kind, given_, tmp_path / name)
        made.append((params, [path.read_bytes() for path in sorted((tmp_path / name).iterdir())]))
    assert made[0] == made[1]


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_new_images_are_found_as_often_as_wanted(
    kind: Kind, vectors: Floats, tmp_path: Path
) -> None:
    queries = clustered(200, seed=1)
    found = []
    for target in (0.8, 0.98, 1.0):
        params = make_structure(kind, vectors, tmp_path, target_recall=target)
        assert params["target_recall"] == target and params["recall"] >= min(target, 0.99)
        index = open_structure(kind, vectors, tmp_path, params)
        assert (index.kind, len(index), index.dim) == (kind, N, DIM)
        found.append(recall(index, vectors, queries))
        assert found[-1] >= target - 0.03
    assert found == sorted(found)


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_its_own_rows_are_found_as_often_as_is_recorded(
    kind: Kind, vectors: Floats, tmp_path: Path
) -> None:
    params = make_structure(kind, vectors, tmp_path, target_recall=0.9)
    index = open_structure(kind, vectors, tmp_path, params)
    # Searches that find fewer than are asked for compare everything, which tuning does not count.
    assert recall(index, vectors, vectors[::15]) > params["recall"] - 0.02


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [1, 2, 39, 40, 85])
def test_a_few_rows_are_enough(kind: Kind, n: int, tmp_path: Path) -> None:
    few = clustered(n)
    index = open_structure(kind, few, tmp_path, make_structure(kind, few, tmp_path))
    found, expected = index.search(few, 3), FlatIndex(few).search(few, 3)
    assert np.array_equal(found.rows[:, 0], expected.rows[:, 0])
    assert found.rows.shape == (n, min(n, 3))


@pytest.mark.parametrize("kind", KINDS)
def test_many_rows_with_one_vector_are_indexed(kind: Kind, tmp_path: Path) -> None:
    same = np.repeat(clustered(1), 300, axis=0)
    index = open_structure(kind, same, tmp_path, make_structure(kind, same, tmp_path))
    found = index.search(same[:2], 10)
    assert found.similarities == pytest.approx(1, abs=1e-6)
    assert all(len(set(row)) == 10 for row in found.rows.tolist())


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "flat"])
def test_vectors_that_are_not_finite_are_refused(
    kind: Kind, vectors: Floats, tmp_path: Path
) -> None:
    spoiled = vectors[:100].copy()
    spoiled[7] = np.nan
    with pytest.raises(IndexProblem, match="not finite"):
        make_structure(kind, spoiled, tmp_path)


@pytest.mark.parametrize("target", [0.0, -1.0, 1.01, float("nan")])
def test_a_target_that_cannot_be_met_is_refused(
    target: float, vectors: Floats, tmp_path: Path
) -> None:
    with pytest.raises(IndexProblem, match="target recall must be above 0 and at most 1"):
        make_structure("ivf", vectors, tmp_path, target_recall=target)
    assert list(tmp_path.iterdir()) == []


def test_progress_is_told_about_all_steps(vectors: Floats, tmp_path: Path) -> None:
    steps: dict[str, int] = {}

    def count(items: Any, *, total: int, label: str) -> Any:
        items = list(items)
        assert len(items) == total
        steps[label] = total
        return items

    with reported_by(count):
        for kind in KINDS:
            make_structure(kind, vectors, tmp_path)
    assert set(steps) == {"Indexing (by 8,192)", "Indexing (by 32,768)"}


@pytest.mark.parametrize(
    ("n", "lists"),
    [(1, 1), (79, 1), (80, 2), (3000, 64), (100_000, 256), (10**6, 1024), (10**9, 8192)],
)
def test_lists_grow_with_the_root_of_the_rows(n: int, lists: int) -> None:
    assert lists_for(n) == lists


# Damage, with files and manifest that vouch for it


def build(directory: Path, kind: Kind, n: int = 120) -> Path:
    with VersionWriter(directory) as writer:
        writer.add(clustered(n))
        writer.publish(
            [str(i) for i in range(n)],
            [[] for _ in range(n)],
            names={},
            columns={},
            about={},
            index_type=kind,
        )
    return directory


def rewrite(directory: Path, search: dict[str, Any] | None = None) -> None:
    """Make the manifest say what is there now, as somebody with ill intent would."""
    version, manifest = read_manifest(directory)
    folder = directory / version
    files = {
        name: {
            "bytes": (folder / name).stat().st_size,
            "sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest(),
        }
        for name in manifest["files"]
    }
    changed = {
        **manifest,
        "files": files,
        "search": manifest["search"] if search is None else search,
    }
    text = json.dumps(changed)
    (folder / "manifest.json").write_text(text)
    (directory / "current").write_text(f"{version} {hashlib.sha256(text.encode()).hexdigest()}\n")


def problem(directory: Path) -> str:
    """What opening says; any other exception than IndexProblem fails the test."""
    with pytest.raises(IndexProblem) as caught:
        open_index(directory)
    return str(caught.value)


@pytest.mark.parametrize("kind", APPROXIMATE)
@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.3, 0.9, 0.999])
def test_a_structure_that_ends_early_is_refused(kind: Kind, share: float, tmp_path: Path) -> None:
    path = build(tmp_path, kind) / "v000001" / "structure.faiss"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    assert "structure.faiss has" in problem(tmp_path)  # it is not even parsed
    rewrite(tmp_path)
    assert "cannot read structure.faiss" in problem(tmp_path)


@pytest.mark.parametrize("kind", APPROXIMATE)
@pytest.mark.parametrize("data", [b"", b"not from FAISS", b"IxMp" + bytes(200), b"\x80\x04pickle"])
def test_what_is_no_structure_is_refused(kind: Kind, data: bytes, tmp_path: Path) -> None:
    (build(tmp_path, kind) / "v000001" / "structure.faiss").write_bytes(data)
    rewrite(tmp_path)
    assert "cannot read structure.faiss" in problem(tmp_path)


@pytest.mark.parametrize("kind", APPROXIMATE)
@pytest.mark.parametrize(("n", "dim"), [(119, DIM), (121, DIM), (120, DIM + 8)])
def test_a_structure_of_other_vectors_is_refused(
    kind: Kind, n: int, dim: int, tmp_path: Path
) -> None:
    folder = build(tmp_path, kind) / "v000001"
    make_structure(kind, clustered(n, dim), folder)
    rewrite(tmp_path)
    assert f"holds {n} rows of {dim} dimensions" in problem(tmp_path)


@pytest.mark.parametrize(("n", "dim"), [(119, DIM), (120, DIM + 8)])
def test_a_table_of_other_vectors_is_refused(n: int, dim: int, tmp_path: Path) -> None:
    folder = build(tmp_path, "scan") / "v000001"
    make_structure("scan", clustered(n, dim), folder)
    rewrite(tmp_path)
    assert "table for scanning" in problem(tmp_path)


@pytest.mark.parametrize("name", SEARCH_FILES["scan"])
@pytest.mark.parametrize(
    "array",
    [None, np.zeros(3, np.float32), np.zeros((120, 3)), np.zeros((7, 2), np.float32)],
    ids=["no array", "one dimension", "float64", "another shape"],
)
def test_a_damaged_table_is_refused(name: str, array: Any, tmp_path: Path) -> None:
    path = build(tmp_path, "scan") / "v000001" / name
    if array is None:
        path.write_bytes(b"\x93NUMPY\x01\x00")
    else:
        np.save(path, array)
    rewrite(tmp_path)
    assert str(tmp_path) in problem(tmp_path)


@pytest.mark.parametrize("kind", APPROXIMATE)
@pytest.mark.parametrize("name", ["effort", "width"])
@pytest.mark.parametrize(
    "value",
    [0, -1, -(2**40), float("inf"), float("nan"), "many", "", None, [],
     [1], {}],
    ids=repr,
)  # fmt: skip
def test_damaged_parameters_are_refused(
    kind: Kind, name: str, value: object, tmp_path: Path
) -> None:
    search = dict(read_manifest(build(tmp_path, kind))[1]["search"])
    rewrite(tmp_path, search | {name: value})
    assert "search parameters are damaged" in problem(tmp_path)


@pytest.mark.parametrize("kind", APPROXIMATE)
@pytest.mark.parametrize("name", ["effort", "width"])
@pytest.mark.parametrize("value", [2**31, 2**63, 2**80, 1e300], ids=repr)
def test_huge_parameters_find_everything_or_are_refused(
    kind: Kind, name: str, value: float, tmp_path: Path
) -> None:
    search = dict(read_manifest(build(tmp_path, kind))[1]["search"])
    rewrite(tmp_path, search | {name: value})
    vectors = clustered(120)
    try:
        found = open_index(tmp_path).index.search(vectors, 5)
    except IndexProblem as refused:
        assert "search parameters are damaged" in str(refused)
    else:
        assert np.array_equal(found.rows[:, 0], np.arange(120))


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_missing_parameters_are_refused(kind: Kind, tmp_path: Path) -> None:
    rewrite(build(tmp_path, kind), {})
    assert "search parameters are damaged" in problem(tmp_path)


# The table that is scanned


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 60),
    dim=st.integers(1, 40),
    width=st.integers(1, 40),
    seed=st.integers(0, 10**6),
    spread=st.sampled_from([0.0, 1e-6, 1e-3, 0.1, 1.0, 10.0]),
)
def test_bounds_are_never_below_the_similarity(
    n: int, dim: int, width: int, seed: int, spread: float
) -> None:
    """However alike the vectors are, and for queries from elsewhere."""
    rng = np.random.default_rng(seed)
    wide = rng.standard_normal(dim) + spread * rng.standard_normal((n, dim))
    vectors, queries = (
        (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
        for rows in (wide, rng.standard_normal((5, dim)))
    )
    axes = fit_axes(vectors, min(width, dim))
    table = ScanTable(axes, np.concatenate(list(fit_table(vectors, axes))))
    assert table.table.shape == (n, min(width, dim)) and table.axes.shape == (
        dim,
        min(width, dim) - 1,
    )
    for asked in (queries, vectors):
        bounds = table.table.astype(np.float64) @ table.shorten(asked).T.astype(np.float64)
        exact = vectors.astype(np.float64) @ asked.T.astype(np.float64)
        assert (bounds - exact).min() > -1e-6


@pytest.mark.parametrize("seed", range(5))
def test_rows_that_differ_by_little_are_told_apart(seed: int) -> None:
    """What is left of a row beside the axes is near the rounding of float32, yet counts."""
    rng = np.random.default_rng(seed)
    rows = np.zeros((3000, 3))
    rows[:, 0] = 1
    rows[:, 1:] = 2e-4 * rng.uniform(-1, 1, (3000, 2))
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    rows, queries = rows @ turn, rng.standard_normal((8, 3))
    vectors, asked = (
        (some / np.linalg.norm(some, axis=1, keepdims=True)).astype(np.float32)
        for some in (rows, queries)
    )
    axes = fit_axes(vectors, 2)
    table = ScanTable(axes, np.concatenate(list(fit_table(vectors, axes))))
    found, expected = (
        index.search(asked, 3) for index in (ScanIndex(vectors, table), FlatIndex(vectors))
    )
    assert np.array_equal(found.rows, expected.rows)
    assert np.array_equal(found.similarities, expected.similarities)


def test_axes_are_orthonormal_and_the_strongest_first(vectors: Floats) -> None:
    axes = fit_axes(vectors, 20).astype(np.float64)
    assert axes.shape == (DIM, 19)
    assert np.abs(axes.T @ axes - np.eye(19)).max() < 1e-6
    strength = ((vectors.astype(np.float64) @ axes) ** 2).sum(axis=0)
    assert np.all(np.diff(strength) <= 1e-6 * strength[0])
    assert np.array_equal(fit_axes(vectors, 20), fit_axes(vectors.copy(), 20))
    assert np.array_equal(fit_axes(vectors, 7), fit_axes(vectors, 20)[:, :6])


def test_axes_are_left_out_where_they_save_nothing() -> None:
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((500, 24))
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    assert fit_axes(noise.astype(np.float32)).shape[1] in (0, 15)
    low = np.zeros((8000, 400), np.float32)
    low[:, :10] = clustered(8000, 10)
    assert 0 < fit_axes(low).shape[1] < 40
