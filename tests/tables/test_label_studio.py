"""Exports of Label Studio as it documents them, and what is written for it."""

from __future__ import annotations

import csv
import io
import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from annotator.errors import FormatError
from annotator.tables.corrections import WantedLabels, read_corrections
from annotator.tables.label_studio import (
    Offer,
    Shown,
    address_of,
    answer_of,
    configuration,
    read_configuration,
    task,
)
from annotator.tables.labels import Labels, read_labels

UPLOADED = "/data/upload/4/1b2c3d4e-scan7.png"
OWN = {
    "annotator": 1,
    "annotation_id": 5,
    "created_at": "2026-11-30T12:00:00.000000Z",
    "updated_at": "2026-11-30T12:00:00.000000Z",
    "lead_time": 3.2,
}


def annotation(*results: Any, **fields: Any) -> dict[str, Any]:
    return {
        "id": 5,
        "completed_by": 1,
        "was_cancelled": False,
        "ground_truth": False,
        "updated_at": "2026-11-30T12:00:00Z",
        "lead_time": 3.2,
        "result": [
            {"value": value, "id": "x", "from_name": name, "to_name": "image", "type": "choices"}
            for name, value in results
        ],
        **fields,
    }


def exported(image: str, *annotations: Any, **data: Any) -> dict[str, Any]:
    return {
        "id": 9,
        "annotations": list(annotations),
        "file_upload": "1b2c3d4e-scan7.png",
        "drafts": [],
        "predictions": [],
        "data": {"image": image, **data},
        "meta": {},
    }


def read(tmp_path: Path, content: Any, **options: Any) -> Labels:
    path = tmp_path / ("export.csv" if isinstance(content, str) else "export.json")
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_labels(path, **options)


def as_csv(records: list[dict[str, Any]]) -> str:
    """As Label Studio writes it: answers that are no texts as JSON."""
    file = io.StringIO()
    writer = csv.DictWriter(file, sorted({name for record in records for name in record}))
    writer.writeheader()
    for record in records:
        writer.writerow(
            {k: v if isinstance(v, str | None) else json.dumps(v) for k, v in record.items()}
        )
    return file.getvalue()


def test_json(tmp_path: Path) -> None:
    mass = annotation(("f", {"choices": ["Mass"]}))
    labels = read(
        tmp_path,
        [
            exported(UPLOADED, annotation(("findings", {"choices": ["C0032285", "Mass"]}))),
            exported("/storage-data/uploaded/?filepath=upload/4/1b2c3d4e-up.png", mass),
            exported("https://x.org/a/scan%208.dcm?key=1", mass),
            exported("/data/local-files/?d=archive%2Fscan9.png", annotation()),
            exported("s3://bucket/scan10.png", annotation(was_cancelled=True)),
            exported("skipped.png"),
        ],
    )
    assert labels.concepts == {
        "scan7.png": ("C0032285", "MASS"),
        "up.png": ("MASS",),
        "a/scan 8.dcm": ("MASS",),
        "archive/scan9.png": (),
    }
    assert labels.names == {"MASS": "Mass"} and labels.shown
    assert "an export of Label Studio (JSON)" in labels.understood
    assert "2 tasks without an annotation are left out" in labels.understood


def test_taxonomies_and_labels_of_regions(tmp_path: Path) -> None:
    taxonomy = {"taxonomy": [["Chest", "Lung", "Pneumonia"], ["Device"]]}
    box = {"x": 1, "y": 2, "width": 3, "height": 4, "rectanglelabels": ["Mass"]}
    found = annotation(("t", taxonomy), ("box", box), ("box", box), ("note", {"text": ["hm"]}))
    labels = read(tmp_path, [exported(UPLOADED, found)])
    assert labels.concepts == {"scan7.png": ("PNEUMONIA", "DEVICE", "MASS")}
    labels = read(tmp_path, [exported(UPLOADED, found)], column="box")
    assert labels.concepts == {"scan7.png": ("MASS",)}
    with pytest.raises(FormatError, match=r"no answers called 'boxes'.*\n?.*box, note, t"):
        read(tmp_path, [exported(UPLOADED, found)], column="boxes")


def test_of_several_annotations_the_truth_counts_then_the_newest(tmp_path: Path) -> None:
    def at(day: int, choice: str, truth: bool = False) -> dict[str, Any]:
        when = f"2026-11-{day:02d}T12:00:00Z"
        return annotation(("f", {"choices": [choice]}), updated_at=when, ground_truth=truth)

    tasks = [
        exported("a.png", at(3, "new"), at(1, "old")),
        exported("b.png", at(1, "true", truth=True), at(3, "new")),
    ]
    labels = read(tmp_path, tasks)
    assert labels.concepts == {"a.png": ("NEW",), "b.png": ("TRUE",)}
    assert "2 images have several annotations, of which one counts" in labels.understood
    records = [
        {"image": "a.png", "id": 1, "choice": "new", **OWN, "updated_at": "2026-11-03"},
        {"image": "a.png", "id": 1, "choice": "old", **OWN, "updated_at": "2026-11-01"},
    ]
    assert read(tmp_path, records).concepts == {"a.png": ("NEW",)}


RECORDS = [
    {"image": UPLOADED, "id": 1, "choice": "Mass", **OWN},
    {"image": "/data/upload/4/1b2c3d4e-scan8.png", "id": 2,
     "choice": {"choices": ["C0032285", "Effusion, left"]}, **OWN},
    {"image": "/data/upload/4/1b2c3d4e-scan9.png", "id": 3, **OWN},
    {"image": "/data/upload/4/1b2c3d4e-todo.png", "id": 4, **OWN, "annotation_id": None},
]  # fmt: skip


@pytest.mark.parametrize("kind", ["JSON_MIN", "CSV"])
def test_json_min_and_csv(tmp_path: Path, kind: str) -> None:
    labels = read(tmp_path, RECORDS if kind == "JSON_MIN" else as_csv(RECORDS))
    assert labels.concepts == {
        "scan7.png": ("MASS",),
        "scan8.png": ("C0032285", "EFFUSION%2C_LEFT"),
        "scan9.png": (),
    }
    assert f"an export of Label Studio ({kind})" in labels.understood
    assert "1 tasks without an annotation are left out" in labels.understood
    taxonomy = [{"image": "a.png", "id": 1, "t": [{"taxonomy": [["Chest", "Mass"]]}], **OWN}]
    content = taxonomy if kind == "JSON_MIN" else as_csv(taxonomy)
    assert read(tmp_path, content).concepts == {"a.png": ("MASS",)}


@pytest.mark.parametrize("kind", ["JSON_MIN", "CSV"])
def test_single_choices_among_other_texts(tmp_path: Path, kind: str) -> None:
    records = [
        {"image": f"{i}.png", "image_id": f"i{i}", "patient": "p", "id": i, "finding": f, **OWN}
        for i, f in enumerate(["Mass", "Effusion"])
    ]
    content: Any = records if kind == "JSON_MIN" else as_csv(records)
    assert read(tmp_path, content).concepts == {"i0": ("MASS",), "i1": ("EFFUSION",)}
    unclear = [{**record, "other": "x"} for record in records]
    for record in unclear:
        record["quality"] = record.pop("finding")
    content = unclear if kind == "JSON_MIN" else as_csv(unclear)
    with pytest.raises(FormatError, match="no field that is one of labels"):
        read(tmp_path, content)
    assert read(tmp_path, content, column="quality").concepts["i1"] == ("EFFUSION",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"a": 1}], "is JSON, which is not read"),
        ([[1]], "is JSON, which is not read"),
        ([exported("a.png")], "has no annotations"),
        (
            [{"data": {"text": "a"}, "annotations": [annotation()]}],
            "task 1: its data name no image",
        ),
        ([exported("a.png", annotation(("f", {"choices": ["12"]})))], "is a number"),
    ],
)
def test_what_is_no_export_is_refused(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        read(tmp_path, content)


def test_an_export_as_corrections(tmp_path: Path) -> None:
    for content in (RECORDS, as_csv(RECORDS)):
        path = tmp_path / "export"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        table = read_corrections(path, mapping={"MASS": ["C0577573"]})
        assert table.wanted["scan7.png"] == WantedLabels(("C0577573",))
        assert table.wanted["scan9.png"] == WantedLabels(()) and table.shown


# What is written


def test_a_task_names_choices_of_the_configuration() -> None:
    concepts = [("C1", "One & two"), ("C2", ""), ("C3", "Same"), ("C4", "Same")]
    root = ET.fromstring(configuration(concepts))
    choices = [choice.attrib for choice in root.iter("Choice")]
    assert [choice["alias"] for choice in choices] == ["C1", "C2", "C3", "C4"]
    assert [c["value"] for c in choices] == ["One & two", "C2", "Same (C3)", "Same (C4)"]
    (control,) = root.iter("Choices")
    assert control.attrib["choice"] == "multiple" and "layout" not in control.attrib
    many = ET.fromstring(configuration([(f"C{i}", "") for i in range(99)]))
    assert next(many.iter("Choices")).attrib["layout"] == "select"
    shown = [Shown("C1", "One & two", 0.876), Shown("C2", "", 0.5)]
    made = task("a/b", address_of("/d?d=", "a/b ü.png"), shown, score=0.75, model="index v000001")
    assert made["data"] == {
        "image": "/d?d=a/b%20%C3%BC.png",
        "image_id": "a/b",
        "scores": "One & two 0.88; C2 0.50",
    }
    (prediction,) = made["predictions"]
    assert (prediction["score"], prediction["model_version"]) == (0.75, "index v000001")
    (result,) = prediction["result"]
    assert result["value"] == {"choices": ["C1", "C2"]}
    assert result["from_name"] == control.attrib["name"]
    assert result["to_name"] == control.attrib["toName"] == next(root.iter("Image")).attrib["name"]
    assert task("a", "a", [], score=0, model="", usable=False)["predictions"] == []
    assert task("a", "a", [], score=0.5, model="")["predictions"][0]["result"] == []


def test_what_a_configuration_offers() -> None:
    concepts = [("C0000001", 'A "<name>" & more'), ("C0000002", ""), ("SHADOW", "Shadow")]
    for with_scores in (True, False):
        offer = read_configuration(configuration(concepts, with_scores=with_scores))
        assert (offer.control, offer.image, offer.field) == ("concepts", "image", "image")
        assert offer.several
        assert offer.by_concept({}) == {"C0000001": "C0000001", "C0000002": "C0000002",
                                        "SHADOW": "SHADOW"}  # fmt: skip
    assert "$scores" not in configuration(concepts, with_scores=False)


def test_choices_by_name() -> None:
    text = """<View><Text name="t" value="$t"/><Choices name="other" toName="t"/>
      <Image name="img" value="$url"/>
      <Choices name="dx" toName="img"><Choice value="Pneumonia"/><Choice value="C0000002"/>
        <Choice value="No such"><Choice value="inner" alias="c0000003"/></Choice></Choices>
      </View>"""
    offer = read_configuration(text)
    assert offer == Offer(
        "dx",
        "img",
        "url",
        (("", "Pneumonia"), ("", "C0000002"), ("", "No such"), ("c0000003", "inner")),
        False,
    )
    assert set(offer.words) == {"PNEUMONIA", "C0000002", "NO_SUCH"}
    assert offer.by_concept({"PNEUMONIA": ("C0032285",)}) == {
        "C0032285": "Pneumonia",
        "C0000002": "C0000002",
        "NO_SUCH": "No such",
        "C0000003": "c0000003",
    }


def test_the_answer_of_one_annotation() -> None:
    one = exported(UPLOADED)
    answer = answer_of(one, annotation(("concepts", {"choices": ["a", "b"]})))
    assert answer is not None and (answer.image, answer.labels) == ("scan7.png", ("a", "b"))
    assert answer_of(one, annotation(was_cancelled=True)) is None
    nothing = answer_of(one, annotation())
    assert nothing is not None and nothing.labels == ()
    for broken in ({"data": 3}, {"data": {}}, {}):
        with pytest.raises(FormatError):
            answer_of(broken, annotation())
