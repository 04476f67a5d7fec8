"""Score files: what classifiers write, and what is refused."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from annotator.errors import FormatError
from annotator.tables.scores import Scores, is_scores, read_scores

IDS = ["x1", "x2"]
CONCEPTS = ["C1", "C2", "C3"]
VALUES = np.array([[0, 0.25, 1], [0.5, 0.125, 0]], np.float32)


def saved(path: Path, **parts: Any) -> Path:
    np.savez(path, **parts)
    return path


def check(found: Scores) -> None:
    assert (list(found.ids), list(found.concepts)) == (IDS, CONCEPTS)
    assert found.values.dtype == np.float32
    assert np.array_equal(found.values, VALUES)


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1).filter(
    lambda text: text == text.strip()
)


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_what_is_written_is_read(data: st.DataObject, tmp_path_factory: Any) -> None:
    ids = data.draw(st.lists(texts, min_size=1, max_size=4, unique=True))
    concepts = [f"C{i}" for i in range(data.draw(st.integers(1, 5)))]
    shares = st.floats(0, 1, width=32)
    values = data.draw(arrays(np.float32, (len(ids), len(concepts)), elements=shares))
    scores = Scores(tuple(ids), tuple(concepts), values)
    path = tmp_path_factory.mktemp("scores") / "s.npz"
    path.write_bytes(scores.to_npz())
    assert scores.to_npz() == path.read_bytes()
    found = read_scores(path)
    assert (found.ids, found.concepts) == (scores.ids, scores.concepts)
    assert np.array_equal(found.values, values)


def test_rows_name_their_concepts() -> None:
    rows = [("x1", {"C3": 1.0000001, "C2": 0.25}), ("x2", {"C1": 0.5, "C2": 0.125})]
    check(Scores.from_shares(rows, CONCEPTS))
    assert Scores.from_shares([], CONCEPTS).values.shape == (0, 3)


@pytest.mark.parametrize(
    "parts",
    [
        {"ids": IDS, "cuis": CONCEPTS, "probs": VALUES},
        {"image_ids": IDS, "labels": ["c1", "c2", "c3"], "probabilities": VALUES.astype("f8")},
        {"id": np.array(IDS, "S"), "classes": np.array(CONCEPTS, "S"), "scores": VALUES.T.copy().T},
        {"ids": IDS, "concepts": CONCEPTS, "scores": VALUES.astype("f2")},
        # The ground truth beside the probabilities is not taken for the names of the concepts.
        {"ids": IDS, "labels": VALUES > 0.2, "classes": CONCEPTS, "probs": VALUES},
    ],
)  # fmt: skip
def test_arrays_as_classifiers_name_them(parts: Mapping[str, Any], tmp_path: Path) -> None:
    path = saved(tmp_path / "p.npz", **parts)
    assert is_scores(path)
    check(read_scores(path))


@pytest.mark.parametrize(
    "text",
    [
        "ID,C1,C2,C3\nx1,0,0.25,1\nx2,0.5,1.25e-1,0\n",
        "image\tC1\tC2\tC3\nx1\t0\t0.25\t1\nx2\t0.5\t0.125\t0\n",
    ],
)
def test_a_csv_has_a_column_for_each_concept(text: str, tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text(text)
    assert is_scores(path)
    check(read_scores(path))


def test_labels_in_words_are_concepts(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text("file,Chest X-ray,No finding\nx1.png,0.5,0.25\n")
    assert is_scores(path)
    found = read_scores(path)
    assert found.concepts == ("CHEST_X-RAY", "NO_FINDING")


def test_a_run_is_no_score_file(tmp_path: Path) -> None:
    for text in ("ID,CUIs\nx1,C1;C2\n", "ID,CUIs\nx1,\n", "x1\tC1\nx2\t\n", "x1,C1\n"):
        (tmp_path / "run.csv").write_text(text)
        assert not is_scores(tmp_path / "run.csv")


def test_rows_are_matched_by_id() -> None:
    scores = Scores(("b.png", "a"), ("C1",), np.zeros((2, 1), np.float32))
    notes: list[str] = []
    assert scores.rows_of(["a", "b", "c"], "p.npz", notes).tolist() == [1, 0, -1]
    assert "matched as such, for example 'b.png' -> 'b'" in notes[0]


GOOD: dict[str, Any] = {"ids": IDS, "concepts": CONCEPTS, "scores": VALUES}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"scores": VALUES * 10 - 5}, "image 'x1' and concept 'C1' is -5, not a probability"),
        ({"scores": VALUES * np.nan}, "is nan, not a probability"),
        ({"scores": VALUES * 100}, "'C2' is 25, not a probability from 0 to 1"),
        ({"scores": VALUES[:1]}, "2 ids and 3 concepts, but scores of the shape 1 x 3"),
        ({"scores": VALUES.T}, "scores of the shape 3 x 2"),
        ({"scores": VALUES.astype(complex)}, "complex128, not numbers"),
        ({"scores": VALUES[0]}, "no 2-d array 'scores'"),
        ({"ids": ["x1", "x1"]}, "image id 'x1' twice"),
        ({"ids": ["x1", " "]}, "an empty image id"),
        ({"ids": np.array(IDS, object)}, "'ids' holds Python objects"),
        ({"ids": np.array([0.5, 1.5])}, "float64, not text"),
        ({"ids": np.array([b"\xff", b"x"])}, "not UTF-8"),
        ({"concepts": ["C1", "c1", "C2"]}, "concept 'C1' twice"),
        ({"concepts": ["C1", " ", "C2"]}, "a concept without a name"),
        ({"ids": [], "scores": VALUES[:0]}, "float64, not text"),
    ],
)
def test_what_does_not_fit_is_refused(
    changed: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(FormatError) as error:
        read_scores(saved(tmp_path / "p.npz", **GOOD | changed))
    assert message in str(error.value) and str(tmp_path / "p.npz") in str(error.value)


def test_other_arrays_may_be_anything(tmp_path: Path) -> None:
    check(read_scores(saved(tmp_path / "p.npz", **GOOD, history=np.array([{}], object))))


def test_an_array_larger_than_its_file_is_not_allocated(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": (2**20, 2**20)}
    np.lib.format.write_array_header_1_0(buffer, header)
    with zipfile.ZipFile(tmp_path / "p.npz", "w") as archive:
        archive.writestr("scores.npy", buffer.getvalue())
    with pytest.raises(FormatError, match="would take 4,398,046,511,104 bytes"):
        read_scores(tmp_path / "p.npz")


@pytest.mark.parametrize("content", [b"PK\x03\x04 no zip", b""])
def test_a_broken_file_is_said_to_be_broken(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "p.npz").write_bytes(content)
    with pytest.raises(FormatError, match=r"p\.npz"):
        read_scores(tmp_path / "p.npz")


def test_a_cut_file_is_refused(tmp_path: Path) -> None:
    whole = Scores(("x",), ("C1",), np.ones((1, 1), np.float32)).to_npz()
    for length in range(4, len(whole), 29):
        (tmp_path / "p.npz").write_bytes(whole[:length])
        with pytest.raises(FormatError):
            read_scores(tmp_path / "p.npz")
    with pytest.raises(FormatError, match="does not exist"):
        read_scores(tmp_path / "none.npz")
    with pytest.raises(FormatError, match="is a folder"):
        read_scores(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ID,C1,C2\nx1,0.5\n", "line 2: 2 columns where the header has 3"),
        ("ID,C1,C2\nx1,0.5,high\n", "'high' in column 'C2' is not a number"),
        ("ID,C1,C2\nx1,0.5,\n", "'' in column 'C2' is not a number"),
        ("ID,C1,C2\nx1,0.5,inf\n", "is inf, not a probability"),
        ("ID\nx1\n", "only one column"),
        ("ID,C1\n", "0 images"),
    ],
)
def test_a_csv_that_does_not_fit(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(FormatError) as error:
        read_scores(tmp_path / "p.csv")
    assert message in str(error.value)
