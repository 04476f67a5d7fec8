"""Any labelling, in any layout and dialect, is read as it was written."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotator.concept_ids import concept_id, is_cui
from annotator.evaluation.official_f1 import score
from annotator.ids import path_id
from annotator.tables.labels import read_labels
from annotator.tables.run import render_run

Labelling = Mapping[str, Sequence[str]]
Rows = list[list[str]]

LABELS = (
    "C0817096", "C1306645", "c0000726", "Pneumonia", "pleural effusion", "HER2+", "X-ray",
    "over 50%", "No Finding", "Épanchement", "肺炎", "Alzheimer's disease", "grade 2", "left/right",
)  # fmt: skip
IDS = ("img_{}.png", "p1/s2/{}.dcm", "1.2.840.{}", "ROCOv2_2023_train_{:06}", "{}")


@st.composite
def labellings(draw: st.DrawFn) -> Labelling:
    """Images with up to four labels, of which at least one image has some."""
    n = draw(st.integers(2, 12))
    form = draw(st.sampled_from(IDS))
    start = draw(st.integers(2, 999))
    ids = [form.format(i) for i in range(start, start + n)]
    sets = st.lists(st.sampled_from(LABELS), max_size=4, unique=True)
    labelling = {id_: draw(sets) for id_ in ids}
    labelling[ids[0]] = labelling[ids[0]] or ["Pneumonia"]
    return labelling


def lists(labelling: Labelling, join: Callable[[Sequence[str]], str]) -> Rows:
    return [["ID", "Labels"], *([id_, join(labels)] for id_, labels in labelling.items())]


def one_hot(labelling: Labelling, yes: str, no: str) -> Rows:
    columns = sorted({label for labels in labelling.values() for label in labels})
    rows = [
        [id_, *(yes if label in labels else no for label in columns)]
        for id_, labels in labelling.items()
    ]
    return [["image", *columns], *rows]


def long(labelling: Labelling) -> Rows:
    rows = [[id_, label] for id_, labels in labelling.items() for label in labels or [""]]
    return [["filename", "Finding"], *rows]


LAYOUTS: dict[str, Callable[[Labelling], Rows]] = {
    "semicolons": lambda labelling: lists(labelling, "; ".join),
    "bars": lambda labelling: lists(labelling, "|".join),
    "commas": lambda labelling: lists(labelling, ", ".join),
    "line breaks": lambda labelling: lists(labelling, "\n".join),
    "Python": lambda labelling: lists(labelling, lambda labels: repr(list(labels))),
    "JSON": lambda labelling: lists(labelling, json.dumps),
    "0 and 1": lambda labelling: one_hot(labelling, "1", "0"),
    "decimals": lambda labelling: one_hot(labelling, "1.0", "0.0"),
    "TRUE and FALSE": lambda labelling: one_hot(labelling, "TRUE", "FALSE"),
    "x and blank": lambda labelling: one_hot(labelling, "x", ""),
    "yes and no": lambda labelling: one_hot(labelling, "yes", "no"),
    "a row for each label": long,
}


def text(rows: Rows, separator: str) -> str:
    out = io.StringIO()
    csv.writer(out, delimiter=separator).writerows(rows)
    return out.getvalue()


def indexed(rows: Rows) -> Rows:
    return [["", *rows[0]], *([str(i), *row] for i, row in enumerate(rows[1:]))]


DIALECTS: dict[str, Callable[[Rows], bytes]] = {
    "csv": lambda rows: text(rows, ",").encode(),
    "csv of Excel": lambda rows: text(rows, ",").encode("utf-8-sig"),
    "semicolons": lambda rows: text(rows, ";").encode("utf-8-sig"),
    "sep=": lambda rows: b"sep=;\r\n" + text(rows, ";").encode(),
    "tabs": lambda rows: text(rows, "\t").encode(),
    "UTF-16": lambda rows: text(rows, "\t").encode("utf-16"),
    "comment": lambda rows: b"# labels, of 2026\n\n" + text(rows, ",").encode(),
    "index of pandas": lambda rows: text(indexed(rows), ",").encode(),
    "reversed": lambda rows: text([row[::-1] for row in rows], ",").encode(),
}


def read_back(content: bytes, labelling: Labelling) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "labels"
        path.write_bytes(content)
        found = read_labels(path)
    assert list(found.concepts) == list(labelling), content
    for id_, labels in labelling.items():
        assert set(found.concepts[id_]) == {concept_id(label) for label in labels}, content
    assert all(concept_id(name) == id_ for id_, name in found.names.items())


@pytest.mark.parametrize("layout", LAYOUTS)
@settings(max_examples=15, deadline=None)
@given(labelling=labellings(), dialect=st.sampled_from(list(DIALECTS)))
def test_what_is_written_is_read(layout: str, labelling: Labelling, dialect: str) -> None:
    read_back(DIALECTS[dialect](LAYOUTS[layout](labelling)), labelling)


@settings(max_examples=10, deadline=None)
@given(labelling=labellings(), layout=st.sampled_from(list(LAYOUTS)))
def test_what_is_written_to_a_workbook_is_read(labelling: Labelling, layout: str) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book, out = openpyxl.Workbook(), io.BytesIO()
    for row in LAYOUTS[layout](labelling):
        book.active.append(row)
    book.save(out)
    read_back(out.getvalue(), labelling)


@settings(max_examples=60, deadline=None)
@given(
    labelling=labellings(),
    layout=st.sampled_from(list(LAYOUTS)),
    dialect=st.sampled_from(list(DIALECTS)),
    cuis_alone=st.booleans(),
)
def test_a_truth_is_scored_as_it_was_written(
    labelling: Labelling, layout: str, dialect: str, cuis_alone: bool
) -> None:
    """Whether or not it could be taken for one in a format of the task."""
    if cuis_alone:
        labelling = {id_: [x for x in row if is_cui(x)] for id_, row in labelling.items()}
        labelling |= {"first": ["C0817096"]}
    labelling = {path_id(id_): row for id_, row in labelling.items()}
    rows = [(id_, sorted({concept_id(x) for x in row})) for id_, row in labelling.items()]
    with tempfile.TemporaryDirectory() as folder:
        run, truth = Path(folder) / "run.csv", Path(folder) / "truth"
        run.write_text(render_run(rows, "2026"), encoding="utf-8")
        truth.write_bytes(DIALECTS[dialect](LAYOUTS[layout](labelling)))
        scored = score(run, truth)
    assert (scored.f1, len(scored.ids)) == (1.0, len(labelling))
