"""The way to a real FiftyOne and back, as docs/fiftyone.md has it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from invoking import done, invoke
from servers import require

from index import open_index

ROOT = Path(__file__).parents[2]
PYTHON = Path(os.environ.get("ANNOTATOR_FIFTYONE") or ROOT / ".venv-fiftyone/bin/python")
SCRIPT = Path(__file__).with_name("in_fiftyone.py")
PAGE = ROOT / "docs" / "fiftyone.md"
N = 12

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory,
    draw: Callable[[Path, int, int], None],
    write_dicom: Callable[..., str],
) -> Path:
    """An index of twelve images of six patients, one of which has a wrong label; and a DICOM."""
    require("FiftyOne", PYTHON.exists())
    folder = tmp_path_factory.mktemp("fiftyone")
    (folder / "images").mkdir()
    labels, patients = ["ID,CUIs\n"], ["ID,patient\n"]
    for i in range(N):
        draw(folder / "images" / f"i{i}.png", i % 3, i)
        kind = 1 if i == 0 else i % 3  # i0 is of the wrong one
        labels.append(f"i{i},C000000{kind};C0000009\n")
        patients.append(f"i{i},p{i // 2}\n")
    names = "CUI,Name\nC0000000,Same\nC0000001,Waves\nC0000002,Same\n"
    (folder / "concepts.csv").write_text("".join(labels))
    (folder / "patients.csv").write_text("".join(patients))
    (folder / "names.csv").write_text(names)
    done(
        invoke(
            *("build-index", folder / "images", folder / "concepts.csv", "--k", 3),
            *("--groups", folder / "patients.csv", "--names", folder / "names.csv"),
            *("--index", folder / "index"),
        )
    )
    write_dicom(folder / "images" / "scan.dcm")
    return folder


@pytest.fixture(scope="module")
def seen(folder: Path) -> dict[str, Any]:
    """What FiftyOne saw."""
    done(
        invoke(
            *("export", "fiftyone", folder / "images", "--index", folder / "index"),
            *("--out", folder / "train-fiftyone"),
        )
    )
    process = subprocess.run(
        [PYTHON, SCRIPT, PAGE],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        timeout=600,
    )
    assert process.returncode == 0, process.stderr[-3000:]
    found: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return found


def test_everything_comes_through(folder: Path, seen: dict[str, Any]) -> None:
    samples = json.loads((folder / "train-fiftyone" / "samples.json").read_text())["samples"]
    predictions = [sample["predictions"]["classifications"] for sample in samples]
    ids = [*(f"i{i}" for i in range(N)), "scan"]
    assert seen["image_id"] == ids
    assert seen["group_id"] == [*(f"p{i // 2}" for i in range(N)), None]
    assert seen["tags"] == {"indexed": N}
    assert seen["predicted"] == [[one["cui"] for one in found] for found in predictions]
    assert seen["confidence"] == [[one["confidence"] for one in found] for found in predictions]
    assert seen["known"][0] == ["Waves", "C0000009"]
    assert seen["known"][3] == ["Same (C0000000)", "C0000009"] and seen["known"][N] is None
    assert seen["f1"] == [sample["f1"] for sample in samples] and seen["f1"][N] is None
    assert seen["f1"][0] < 1 and seen["wrong"] >= 1
    assert seen["info"]["annotator"]["index"] == str(folder / "index")
    assert seen["fields"]["embedding"] == "VectorField"
    assert seen["widths"][0] == 80 and seen["widths"][N] == 32  # of the rendered picture


def test_similarity_is_that_of_the_index(seen: dict[str, Any]) -> None:
    assert seen["alike"] == seen["nearest"] and seen["alike"][0] == "i0"
    assert seen["norms"] == pytest.approx([1] * (N + 1), abs=1e-5)
    assert sorted(seen["runs"]) == ["map", "similarity"]


def test_fiftyone_writes_it_again(seen: dict[str, Any]) -> None:
    assert seen["again"] is True


def test_corrections_come_back(folder: Path, seen: dict[str, Any]) -> None:
    table = (folder / "corrected.csv").read_text().splitlines()
    assert table[0] == "ID,CUIs" and len(table) == 2, seen["version"]
    done(invoke("relabel", folder / "corrected.csv", "--index", folder / "index"))
    (row,) = [i for i, id_ in enumerate(open_index(folder / "index").ids) if id_ == "i0"]
    assert open_index(folder / "index").labels.row(row) == ("C0000000", "C0000009")
