"""Choosing a kind of index, building its files, and opening them only if they fit."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from versions import version_folder

from index import FlatIndex, IndexProblem, open_index
from index.manifest import SEARCH_FILES
from index.progress import Work, reported_by
from index.search.base import VectorIndex
from index.search.build import KINDS, Kind, build_files, choose_kind, machine_memory, open_files
from index.search.ivf import lists_for
from tests.index.indexes import problem, publish, replace_file, rewrite

Floats = NDArray[np.float32]
APPROXIMATE: tuple[Kind, ...] = ("ivf", "compressed")
GIB = 2**30
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


@pytest.mark.parametrize(
    ("n", "dim", "target", "memory", "kind", "reason"),
    [
        (1, 1280, None, GIB, "flat", "1 rows are few enough to compare them all"),
        (5_000, 1280, 0.9, 1, "flat", "5,000 rows are few enough"),
        (5_001, 1280, None, GIB, "scan", "5,001 rows can be searched exactly"),
        (200_000, 64, None, GIB, "flat", "200,000 rows can be searched exactly"),
        (200_000, 65, None, GIB, "scan", "200,000 rows can be searched exactly"),
        (200_001, 512, None, GIB, "ivf", "too many to compare them all.*target recall 0.98"),
        (50_000, 512, 0.9, GIB, "ivf", r"their vectors \(0.1 GiB\) fit in 1.0 GiB.*recall 0.9$"),
        (1_000_000, 512, None, GIB, "compressed", r"\(1.9 GiB\) do not fit in 1.0 GiB.*0.98$"),
        (1_000_000, 512, 1.0, 1, "scan", r"all true neighbours are wanted \(target recall 1\)"),
        (1_000_000, 16, 1.0, GIB, "flat", "all true neighbours are wanted"),
    ],
)
def test_the_kind_follows_from_rows_length_recall_and_memory(
    n: int, dim: int, target: float | None, memory: int, kind: str, reason: str
) -> None:
    chosen, why = choose_kind(n, dim, target_recall=target, memory=memory)
    assert chosen == kind
    assert re.search(reason, why), why


def test_half_of_the_memory_of_the_machine_counts() -> None:
    memory = machine_memory()
    assert GIB // 4 < memory < 2**50
    fits = memory // 2 // (4 * 512)
    assert choose_kind(fits, 512, target_recall=0.9)[0] == "ivf"
    assert choose_kind(fits + 1, 512, target_recall=0.9)[0] == "compressed"


# Building


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_vectors_give_the_same_bytes_in_memory_and_mapped_from_disk(
    kind: Kind, vectors: Floats, tmp_path: Path
) -> None:
    np.save(tmp_path / "vectors.npy", vectors)
    mapped = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    made: list[Any] = []
    for name, given in (("one", vectors), ("other", mapped)):
        (tmp_path / name).mkdir()
        params = build_files(kind, given, tmp_path / name)
        files = {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        assert set(files) == set(SEARCH_FILES[kind])
        made.append((params, files))
    assert made[0] == made[1]
    assert json.loads(json.dumps(made[0][0])) == made[0][0]


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_new_images_are_found_as_often_as_wanted(
    kind: Kind, vectors: Floats, tmp_path: Path
) -> None:
    queries = clustered(200, seed=1)
    found = []
    for target in (0.8, 0.98, 1.0):
        params = build_files(kind, vectors, tmp_path, target_recall=target)
        assert params["target_recall"] == target and params["recall"] >= min(target, 0.99)
        index = open_files(kind, vectors, tmp_path, params)
        assert (index.kind, len(index), index.dim) == (kind, N, DIM)
        found.append(recall(index, vectors, queries))
        assert found[-1] >= target - 0.03
    assert found == sorted(found)


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_its_own_rows_are_found_as_often_as_is_recorded(
    kind: Kind, vectors: Floats, tmp_path: Path
) -> None:
    params = build_files(kind, vectors, tmp_path, target_recall=0.9)
    index = open_files(kind, vectors, tmp_path, params)
    # Searches that find fewer than are asked for compare everything, which tuning does not count.
    assert recall(index, vectors, vectors[::15]) > params["recall"] - 0.02


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [1, 39, 85])
def test_a_few_rows_are_enough(kind: Kind, n: int, tmp_path: Path) -> None:
    few = clustered(n)
    index = open_files(kind, few, tmp_path, build_files(kind, few, tmp_path))
    found, expected = index.search(few, 3), FlatIndex(few).search(few, 3)
    assert np.array_equal(found.rows[:, 0], expected.rows[:, 0])
    assert found.rows.shape == (n, min(n, 3))


@pytest.mark.parametrize("kind", KINDS)
def test_many_rows_with_one_vector_are_indexed(kind: Kind, tmp_path: Path) -> None:
    same = np.repeat(clustered(1), 300, axis=0)
    index = open_files(kind, same, tmp_path, build_files(kind, same, tmp_path))
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
        build_files(kind, spoiled, tmp_path)


@pytest.mark.parametrize("target", [0.0, -1.0, 1.01, float("nan")])
def test_a_target_that_cannot_be_met_is_refused(
    target: float, vectors: Floats, tmp_path: Path
) -> None:
    with pytest.raises(IndexProblem, match="target recall must be above 0 and at most 1"):
        build_files("ivf", vectors, tmp_path, target_recall=target)
    assert list(tmp_path.iterdir()) == []


def test_progress_is_told_about_all_steps(vectors: Floats, tmp_path: Path) -> None:
    steps: set[str] = set()

    def count(items: Any, work: Work) -> Any:
        items = list(items)
        assert sum(map(work.size, items)) == work.total == len(vectors)
        steps.add(f"{work.label} {work.unit}")
        return items

    with reported_by(count):
        for kind in KINDS:
            build_files(kind, vectors, tmp_path)
    assert steps == {"Indexing vectors"}


@pytest.mark.parametrize(
    ("n", "lists"),
    [(1, 1), (79, 1), (80, 2), (3000, 64), (100_000, 256), (10**6, 1024), (10**9, 8192)],
)
def test_lists_grow_with_the_root_of_the_rows(n: int, lists: int) -> None:
    assert lists_for(n) == lists


# Damage, with files and manifest that vouch for it


def build(directory: Path, kind: Kind, n: int = 120) -> Path:
    publish(directory, clustered(n), index_type=kind)
    return directory


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_a_faiss_index_that_ends_early_is_refused(share: float, tmp_path: Path) -> None:
    path = version_folder(build(tmp_path, "ivf")) / "structure.faiss"
    whole = path.read_bytes()
    part = whole[: int(share * len(whole))]
    path.write_bytes(part)
    assert "structure.faiss has" in problem(tmp_path)  # it is not even parsed
    replace_file(tmp_path, path.name, part)
    assert "cannot read structure.faiss" in problem(tmp_path)


@pytest.mark.parametrize("data", [b"not from FAISS", b"IxMp" + bytes(200), b"\x80\x04pickle"])
def test_what_is_no_faiss_index_is_refused(data: bytes, tmp_path: Path) -> None:
    replace_file(build(tmp_path, "ivf"), "structure.faiss", data)
    assert "cannot read structure.faiss" in problem(tmp_path)


@pytest.mark.parametrize("kind", ["ivf", "scan"])
@pytest.mark.parametrize(("n", "dim"), [(119, DIM), (120, DIM + 8)])
def test_files_of_other_vectors_are_refused(kind: Kind, n: int, dim: int, tmp_path: Path) -> None:
    directory = build(tmp_path / "index", kind)
    build_files(kind, clustered(n, dim), tmp_path)
    for name in SEARCH_FILES[kind]:
        replace_file(directory, name, (tmp_path / name).read_bytes())
    expected = "table for scanning" if kind == "scan" else f"holds {n} rows of {dim} dimensions"
    assert expected in problem(directory)


@pytest.mark.parametrize("name", SEARCH_FILES["scan"])
@pytest.mark.parametrize(
    "array",
    [None, np.zeros(3, np.float32), np.zeros((120, 3)), np.zeros((7, 2), np.float32)],
    ids=["no array", "one dimension", "float64", "another shape"],
)
def test_a_damaged_table_is_refused(name: str, array: Any, tmp_path: Path) -> None:
    path = tmp_path / "array.npy"
    if array is None:
        path.write_bytes(b"\x93NUMPY\x01\x00")
    else:
        np.save(path, array)
    replace_file(build(tmp_path / "index", "scan"), name, path.read_bytes())
    assert str(tmp_path) in problem(tmp_path / "index")


@pytest.mark.parametrize("name", ["effort", "width"])
@pytest.mark.parametrize("value", [0, 2**31, float("inf"), float("nan"), "many", None], ids=repr)
def test_damaged_parameters_are_refused(name: str, value: object, tmp_path: Path) -> None:
    build(tmp_path, "ivf")
    rewrite(tmp_path, lambda m: m | {"search": m["search"] | {name: value}})
    assert "search parameters are damaged" in problem(tmp_path)
    rewrite(tmp_path, lambda m: m | {"search": {}})
    assert "search parameters are damaged" in problem(tmp_path)


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_the_largest_parameters_find_everything(kind: Kind, tmp_path: Path) -> None:
    largest = {"effort": 2**31 - 1, "width": 2**31 - 1}
    rewrite(build(tmp_path, kind), lambda m: m | {"search": m["search"] | largest})
    found = open_index(tmp_path).index.search(clustered(120), 5)
    assert np.array_equal(found.rows[:, 0], np.arange(120))
