"""A table of pandas is read as the file that it would be saved to."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from annotator import read_collection
from annotator.errors import FormatError
from annotator.tables.frame import sheet_of_frame
from annotator.tables.labels import labels_of, read_labels

IDS = ["s0", "s1", "s2"]


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame({"id": IDS, "labels": ["a;b", None, "C0000001"]}),
        pd.DataFrame({"id": IDS, "a": [1, 0, 0], "b": [True, False, False]}),
        pd.DataFrame({"id": IDS, "a": [1.0, 0.0, np.nan], "b": [1, 0, 0]}),
        pd.DataFrame({"id": [*IDS, "s0"], "label": ["a", "b", "c", "b"]}),
        pd.DataFrame({"labels": ["a;b", "", "c"]}, index=pd.Index(IDS, name="id")),
        pd.DataFrame({"id": IDS, "labels": ["a;b", "c", "d"]}, index=[7, 3, 5]),
        pd.DataFrame({"id": [1, 2, 3], "labels": ["a", "b", "a;b"]}),
    ],
)
def test_frames_are_read_as_their_files(frame: pd.DataFrame, tmp_path: Path) -> None:
    named = frame.index.name is not None
    frame.to_csv(tmp_path / "labels.csv", index=named)
    from_file = read_labels(tmp_path / "labels.csv")
    from_frame = labels_of(sheet_of_frame(frame))
    assert (from_frame.concepts, from_frame.names) == (from_file.concepts, from_file.names)
    assert from_frame.understood.startswith("the DataFrame")


@pytest.mark.parametrize(
    "cells", [[["a", "b c"], [], ["d"]], [{"b c", "a"}, set(), {"d"}], [("a", "b c"), (), ("d",)]]
)
def test_cells_may_hold_lists(cells: list[Any]) -> None:
    frame = pd.DataFrame({"labels": cells}, index=IDS)
    labels = labels_of(sheet_of_frame(frame), ["labels"])
    assert labels.concepts == {"s0": ("A", "B_C"), "s1": (), "s2": ("D",)}
    arrays = pd.DataFrame({"id": IDS, "labels": [np.array(row) for row in map(list, cells)]})
    assert labels_of(sheet_of_frame(arrays), ["labels"]).concepts.keys() == set(IDS)


def test_what_is_wrong_with_a_frame_is_named() -> None:
    with pytest.raises(FormatError, match="DataFrame is empty"):
        sheet_of_frame(pd.DataFrame({"id": [], "labels": []}))
    twice = pd.DataFrame({"id": ["s0", "s0"], "labels": ["a;b", "c;d"]})
    with pytest.raises(FormatError, match="the DataFrame, row 3"):
        labels_of(sheet_of_frame(twice))


def test_a_collection_of_a_frame_or_a_mapping(tmp_path: Path) -> None:
    for id_ in IDS:
        Image.new("L", (8, 8), 99).save(tmp_path / f"{id_}.png")
    table = "file,finding,age\ns0.png,a;b,3\ns1.png,a,4\ns2.png,C0000001,5\n"
    (tmp_path / "labels.csv").write_text(table)
    frame = pd.read_csv(io.StringIO(table))
    paths = [str(tmp_path / f"{id_}.png") for id_ in IDS]
    expected = read_collection(tmp_path, tmp_path / "labels.csv")
    mapping = {"s0": {"a", "b"}, "s1": "a", "s2": ["C0000001"]}
    for images in (tmp_path, paths, pd.Series(paths)):
        for concepts in (frame, mapping):
            found = read_collection(images, concepts)  # type: ignore[arg-type]
            assert {id_: set(c) for id_, c in found.concepts.items()} == {
                id_: set(c) for id_, c in expected.concepts.items()
            }
            assert dict(found.names) == dict(expected.names) == {"A": "a", "B": "b"}
    by_age = read_collection(tmp_path, frame.assign(other="z"), label_column="other")
    assert set(by_age.concepts.values()) == {("Z",)}
