"""Tables of vectors as a source of images: ids, order, unit norm, and rows that cannot be used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from vector_files import npy, npz, unit_rows

from annotator.encoders.local_runner import Embedded
from annotator.errors import AnnotatorError, FormatError
from annotator.images.ref import unusable
from annotator.vectors.encoder import VectorEncoder
from annotator.vectors.table import VectorTable, read_vectors, to_units


def table_of(rows: np.ndarray, ids: list[str]) -> VectorTable:
    return VectorTable(rows, ids, "v.npy", ids_in="ids.txt")


def embedded(table: VectorTable) -> list[Embedded]:
    return list(table.embed(table.found().images, table.embedder))


@given(st.permutations(range(300)))
def test_the_order_of_rows_does_not_matter(order: list[int]) -> None:
    rows, ids = unit_rows(300, 3), [f"i{i}" for i in range(300)]
    shuffled = table_of(rows[order], [ids[i] for i in order])
    results = embedded(shuffled)
    assert [result.ref.id for result in results] == ids  # the natural order
    np.testing.assert_array_equal(np.stack([r.vector for r in results]), rows)


@given(
    arrays(np.float64, (4, 3), elements=st.floats(allow_nan=True, allow_infinity=True)),
    st.sampled_from([np.float32, np.float64]),
)
def test_every_usable_row_gets_its_direction(values: np.ndarray, dtype: type) -> None:
    with np.errstate(over="ignore"):
        rows = values.astype(dtype)
    for row, (unit, _) in zip(rows.astype(float), to_units(rows), strict=True):
        if not np.isfinite(row).all() or not row.any():
            assert unit is None
            continue
        assert unit is not None and unit.dtype == np.float32
        assert np.linalg.norm(unit.astype(float)) == pytest.approx(1, abs=1e-5)
        scaled = row / np.abs(row).max()
        np.testing.assert_allclose(unit, scaled / np.linalg.norm(scaled), atol=2e-5)


def test_rows_of_unit_norm_stay_as_they_are_and_others_are_noted() -> None:
    rows = unit_rows(3)
    results = embedded(table_of(np.stack([rows[0], 4 * rows[1], rows[2]]), list("abc")))
    assert [r.notes for r in results] == [(), ("vector_scaled",), ()]
    vectors = np.stack([r.vector for r in results])
    np.testing.assert_array_equal(vectors[[0, 2]], rows[[0, 2]])
    np.testing.assert_allclose(vectors[1], rows[1], atol=1e-7)
    halves = embedded(table_of(rows.astype(np.float16), list("abc")))
    assert [r.notes for r in halves] == [(), (), ()]


def test_bad_rows_cost_the_others_nothing() -> None:
    rows = unit_rows(5)
    rows[1] = 0
    rows[2, 0] = np.nan
    rows[3, 1] = -np.inf
    results = embedded(table_of(rows, list("abcde")))
    assert [r.vector is not None for r in results] == [True, False, False, False, True]
    for result in results[1:4]:
        assert result.error is not None and result.error.code == "no_vector"
    assert results[1].ref.where == "v.npy row 1"


def test_images_without_a_row_fail_alone() -> None:
    table = table_of(unit_rows(2), list("ab"))
    refs = [*table.found().images, unusable("c", "c", "no image has this id")]
    results = list(table.embed(refs, table.embedder))
    assert [r.error and r.error.message for r in results] == [None, None, "no image has this id"]


def test_vectors_of_another_length() -> None:
    table = table_of(unit_rows(2), list("ab"))
    with pytest.raises(AnnotatorError, match="length 5, other has 6"):
        list(table.embed(table.found().images, VectorEncoder.own("other", 6)))


@pytest.mark.parametrize(
    ("ids", "id_from", "expected"),
    [
        (["b.png", "x/a.PNG"], "auto", ["a", "b"]),
        (["p1/1.png", "p2/1.png"], "auto", ["p1/1", "p2/1"]),
        (["case/1", "case/2.5"], "auto", ["case/1", "case/2.5"]),
        (["a.png", "b"], "auto", ["a.png", "b"]),
        (["case/2", "case\\1"], "name", ["1", "2"]),
        (["x/1.png", "x/2"], "path", ["x/1", "x/2"]),
        (["a,b", "a;b|c"], "auto", ["a,b", "a;b|c"]),
    ],
)
def test_ids_of_images(ids: list[str], id_from: str, expected: list[str]) -> None:
    found = table_of(unit_rows(2), ids).found(id_from=id_from)  # type: ignore[arg-type]
    assert [ref.id for ref in found.images] == expected


def test_repeated_ids() -> None:
    table = table_of(unit_rows(4), ["a", "b", "a", "a"])
    with pytest.raises(AnnotatorError, match=r"in ids.txt, such as a \(rows 0, 2, 3\)"):
        table.found()
    found = table.found(on_duplicate="first")
    assert [ref.where for ref in found.images] == ["v.npy row 0", "v.npy row 1"]
    assert found.duplicates == {"a": ["v.npy row 0", "v.npy row 2", "v.npy row 3"]}


def test_ids_that_cannot_be() -> None:
    with pytest.raises(FormatError, match="row 1 has no id"):
        table_of(unit_rows(2), ["a", " "]).found()
    with pytest.raises(AnnotatorError, match="no SOPInstanceUID"):
        table_of(unit_rows(1), ["a"]).found(id_from="sop")
    (result,) = embedded(table_of(unit_rows(1), ["a\nb"]))
    assert result.error is not None and "control character" in result.error.message


def test_reading(tmp_path: Path) -> None:
    rows = unit_rows(2)
    path, ids = npy(tmp_path, rows, ["b", "a"])
    table = read_vectors(path, ids)
    assert [ref.id for ref in table.found().images] == ["a", "b"]
    assert table.encoder is None and table.embedder.name == "own-vectors"
    read = f"{path}: 2 vectors of length 5 (float32); ids from {ids}, such as 'b'"
    assert table.understood == read
    named = read_vectors(path, ["x", "y"], encoder="my net")
    assert named.embedder == VectorEncoder.own("my net", 5)
    assert " of my net (float32)" in named.understood


def test_ids_in_an_array(tmp_path: Path) -> None:
    path, _ = npy(tmp_path, unit_rows(3), [])
    ids = tmp_path / "i.npy"
    np.save(ids, ["a,b", "c", "größe"])
    assert list(read_vectors(path, ids).ids) == ["a,b", "c", "größe"]
    np.save(ids, np.arange(3))
    assert list(read_vectors(path, ids).ids) == ["0", "1", "2"]
    ids.write_bytes(ids.read_bytes()[:-3])
    with pytest.raises(FormatError, match=r"i.npy cannot be read"):
        read_vectors(path, ids)
    for wrong in (np.zeros((3, 2), int), np.zeros(3), np.array([1, None, "a"], object)):
        np.save(ids, wrong, allow_pickle=True)
        with pytest.raises(FormatError, match=r"i.npy.* (no list of ids|is no id|Python objects)"):
            read_vectors(path, ids)
    with pytest.raises(FormatError, match="does not exist"):
        read_vectors(path, tmp_path / "absent.npy")


def test_ids_that_do_not_fit(tmp_path: Path) -> None:
    path, ids = npy(tmp_path, unit_rows(2), ["a", "b", "c"])
    with pytest.raises(FormatError, match=r"ids.txt has 3 ids, but .*v.npy has 2 vectors"):
        read_vectors(path, ids)
    with pytest.raises(AnnotatorError, match="which image each of its 2 rows is of"):
        read_vectors(path)
    path, _ = npz(tmp_path, unit_rows(2), ["a", "b"])
    with pytest.raises(AnnotatorError, match="ids of its own"):
        read_vectors(path, ["c", "d"])
    assert list(read_vectors(path, ["c"], prefer_own_ids=True).ids) == ["a", "b"]


def test_a_file_that_names_another_encoder(tmp_path: Path) -> None:
    np.savez(tmp_path / "v.npz", vectors=unit_rows(1), ids=["a"], encoder="their net")
    assert read_vectors(tmp_path / "v.npz", encoder="their net").embedder.name == "their net"
    with pytest.raises(AnnotatorError, match="vectors of 'their net', not of 'my net'"):
        read_vectors(tmp_path / "v.npz", encoder="my net")
