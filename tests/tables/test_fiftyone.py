"""Datasets of FiftyOne, as far as they can be read without it; tests/integrations has FiftyOne."""

from __future__ import annotations

import base64
import io
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from annotator.errors import AnnotatorError
from annotator.tables.fiftyone import FiftyOneSample, Label, check_out, write_dataset

VECTORS = np.eye(3, 8, dtype=np.float32)
ONE, TWO = Label("C1", "One", 0.75, 0.5), Label("C2", "Größe", 0.5, 0.25)
SAMPLES = [
    FiftyOneSample("a", "/images/a.png", VECTORS[0], [ONE, TWO], 0.8, 0.4, [ONE], 2 / 3, "p1"),
    FiftyOneSample("b", "data/b.jpg", VECTORS[1], [ONE], 0.7, None, [ONE, TWO], 2 / 3, tags=["x"]),
    FiftyOneSample("c", "data/c.jpg", VECTORS[2], [], 0.0),
]


def written(folder: Path, samples: list[FiftyOneSample]) -> tuple[dict[str, Any], Any]:
    folder.mkdir()
    assert write_dataset(folder, samples, name="name", info={"index": "x"}) == len(samples)
    text = (folder / "samples.json").read_text()
    return json.loads((folder / "metadata.json").read_text()), json.loads(text)["samples"]


def test_what_samples_say(tmp_path: Path) -> None:
    dataset, (a, b, c) = written(tmp_path / "out", SAMPLES)
    assert dataset["info"] == {"annotator": {"index": "x"}}
    assert [label["eval"] for label in a["predictions"]["classifications"]] == ["tp", "fp"]
    assert [label["eval"] for label in a["ground_truth"]["classifications"]] == ["tp"]
    assert [label["eval"] for label in b["ground_truth"]["classifications"]] == ["tp", "fn"]
    found = a["predictions"]["classifications"][1]
    assert (found["label"], found["cui"]) == ("Größe", "C2")
    assert (found["confidence"], found["score"]) == (0.25, 0.5)
    assert (a["group_id"], b["group_id"], b["tags"]) == ("p1", None, ["x"])
    assert c["ground_truth"] is None and c["f1"] is None and c["familiarity"] is None


def test_every_field_is_declared(tmp_path: Path) -> None:
    """Else it could not be seen in the App."""

    def names(fields: Any) -> dict[str, Any]:
        return {field["db_field"]: names(field["fields"]) for field in fields}

    def check(document: dict[str, Any], declared: dict[str, Any]) -> None:
        for name, value in document.items():
            assert name == "_cls" or name in declared, name
            for inner in value if isinstance(value, list) else [value]:
                if isinstance(inner, dict) and declared.get(name):
                    check(inner, declared[name])

    dataset, samples = written(tmp_path / "out", SAMPLES)
    for sample in samples:
        check(sample, names(dataset["sample_fields"]))


def test_vectors_are_deflated_arrays(tmp_path: Path) -> None:
    _, samples = written(tmp_path / "out", SAMPLES)
    for sample, vector in zip(samples, VECTORS, strict=True):
        raw = zlib.decompress(base64.b64decode(sample["embedding"]["$binary"]["base64"]))
        read = np.load(io.BytesIO(raw), allow_pickle=False)
        assert read.dtype == np.float32 and np.array_equal(read, vector)


def test_ids_are_of_the_image_alone_and_unlike(tmp_path: Path) -> None:
    _, samples = written(tmp_path / "one", SAMPLES)
    _, others = written(tmp_path / "two", SAMPLES[::-1])
    assert samples == others[::-1]
    ids = [sample["_id"]["$oid"] for sample in samples] + [
        label["_id"]["$oid"]
        for sample in samples
        for field in ("ground_truth", "predictions")
        for label in (sample[field] or {"classifications": []})["classifications"]
    ]
    assert len(set(ids)) == len(ids) == 3 + 6 and {len(id_) for id_ in ids} == {24}
    for name in ("samples.json", "metadata.json", "brain/similarity.json"):
        written(tmp_path / f"again {name[0]}", SAMPLES)
        again = tmp_path / f"again {name[0]}" / name
        assert again.read_bytes() == (tmp_path / "one" / name).read_bytes()


def test_no_samples_are_a_dataset(tmp_path: Path) -> None:
    assert written(tmp_path / "out", [])[1] == []


def test_what_is_replaced(tmp_path: Path) -> None:
    check_out(tmp_path / "new", overwrite=False)
    written(tmp_path / "ours", SAMPLES)
    check_out(tmp_path / "ours", overwrite=True)
    with pytest.raises(AnnotatorError, match="exists already"):
        check_out(tmp_path / "ours", overwrite=False)
    with pytest.raises(AnnotatorError, match="is no dataset of"):
        check_out(tmp_path, overwrite=True)
    (tmp_path / "metadata.json").write_text('{"info": {}}')  # of FiftyOne's own export
    with pytest.raises(AnnotatorError, match="is no dataset of"):
        check_out(tmp_path, overwrite=True)
    with pytest.raises(AnnotatorError, match="There is no folder"):
        check_out(tmp_path / "no" / "such", overwrite=False)
