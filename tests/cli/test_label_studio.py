"""To Label Studio and back: tasks with predictions, a configuration, and its exports as labels."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from invoking import done, invoke

from index import StoredIndex, open_index

IDS = [f"scan{i}" for i in range(12)]
NAMES = {"C0000001": "One", "C0000002": "Two", "C0000003": "Two"}


def export(choices: dict[str, list[str]]) -> list[dict[str, Any]]:
    """An export in JSON of images that were uploaded."""
    return [
        {
            "id": number,
            "annotations": [
                {
                    "was_cancelled": False,
                    "updated_at": "2026-11-30T12:00:00Z",
                    "result": [
                        {
                            "from_name": "concepts",
                            "to_name": "image",
                            "type": "choices",
                            "value": {"choices": chosen},
                        }
                    ],
                }
            ],
            "predictions": [],
            "data": {"image": f"/data/upload/1/0a1b2c3d-{id_}.png"},
        }
        for number, (id_, chosen) in enumerate(choices.items(), 1)
    ]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    rows = np.random.default_rng(0).normal(size=(12, 8)).astype(np.float32)
    rows += np.where(np.arange(12) % 2, 5, -5)[:, None]
    np.save(tmp_path / "x.npy", rows)
    (tmp_path / "ids.txt").write_text("".join(f"{id_}\n" for id_ in IDS))
    (tmp_path / "names.csv").write_text(
        "CUI,Name\n" + "".join(f"{cui},{name}\n" for cui, name in NAMES.items())
    )
    return tmp_path


def build(files: Path, labels: Any) -> StoredIndex:
    table = files / "labels.json"
    table.write_text(json.dumps(labels))
    result = invoke(
        "build-index", "--vectors", files / "x.npy", "--ids", files / "ids.txt", table,
        "--encoder-name", "net", "--names", files / "names.csv", "--index", files / "index",
        "--adaptation", "none",
    )  # fmt: skip
    assert "an export of Label Studio (JSON)" in done(result)
    return open_index(files / "index")


def labels_of(stored: StoredIndex) -> dict[str, tuple[str, ...]]:
    return {id_: stored.labels.row(row) for row, id_ in enumerate(stored.ids)}


def test_names_in_an_export_are_concepts(files: Path) -> None:
    choices = {id_: [["one", "C0000009"], ["Two", "Shadow"]][i % 2] for i, id_ in enumerate(IDS)}
    stored = build(files, export(choices))
    assert labels_of(stored)["scan0"] == ("C0000001", "C0000009")
    assert labels_of(stored)["scan1"] == ("SHADOW", "TWO")  # the name of two concepts
    assert stored.names == {"C0000001": "One", "SHADOW": "Shadow", "TWO": "Two"}


def test_the_whole_way(files: Path) -> None:
    index = files / "index"
    build(files, export({id_: [["C0000001"], ["C0000002"]][i % 2] for i, id_ in enumerate(IDS)}))
    config = invoke("concepts", "label-studio", "--index", index).stdout
    choices = {c.attrib["alias"]: c.attrib["value"] for c in ET.fromstring(config).iter("Choice")}
    assert choices == {"C0000001": "One", "C0000002": "Two"}
    uploads = invoke("concepts", "label-studio", "--uploads", "--index", index).stdout
    assert config.replace('  <Text name="scores" value="$scores"/>\n', "") == uploads != config
    result = invoke(
        "annotate", "--vectors", files / "x.npy", "--ids", files / "ids.txt", "--index", index,
        "--k", "3", "--format", "label-studio", "--url-prefix", "https://x.org/",
    )  # fmt: skip
    tasks = json.loads(result.stdout)
    assert [task["data"]["image_id"] for task in tasks] == IDS
    assert tasks[0]["data"]["image"] == "https://x.org/scan0"
    (prediction,) = tasks[1]["predictions"]
    assert prediction["result"][0]["value"]["choices"] == ["C0000002"]
    assert 0 < prediction["score"] <= 1
    assert "annotator concepts label-studio" in result.stderr

    for task in tasks:  # somebody accepts all of them but one
        (answer,) = task.pop("predictions")
        task["annotations"] = [{"result": answer["result"], "updated_at": "2026-11-30"}]
    tasks[3]["annotations"][0]["result"][0]["value"]["choices"] = ["One", "C0000005"]
    (files / "export.json").write_text(json.dumps(tasks))
    said = done(invoke("relabel", files / "export.json", "--index", index, "--reason", "review"))
    assert "labels changed on 1 image; 11 had these labels already" in said
    assert labels_of(open_index(index))["scan3"] == ("C0000001", "C0000005")


def test_addresses_are_paths_below_the_folder() -> None:
    from annotator.cli.annotate import addresses
    from annotator.images.ref import ImageRef

    refs = [ImageRef("a", "archive/x/a b.png", lambda: b""), ImageRef("b", "else/b.png", bytes)]
    address = addresses(refs, "archive", "/data/local-files/?d=archive/")
    assert address("a") == "/data/local-files/?d=archive/x/a%20b.png"
    assert address("b") == "/data/local-files/?d=archive/b.png"
    assert addresses(refs[:1], "archive/x/a b.png", "")("a") == "a%20b.png"


def test_options_that_go_together(files: Path) -> None:
    result = invoke("annotate", "x", "--url-prefix", "y")
    assert result.exit_code == 2 and "--url-prefix requires --format label-studio" in result.stderr
