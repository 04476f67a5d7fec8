"""The examples of docs/python.md run, one after the other."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from annotator.collection import read_collection
from annotator.encoders.registry import make_embedder
from annotator.indexing.build import build_index
from annotator.phantoms import write_sample

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_examples_run(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    sample = write_sample(tmp_path / "sample", n=24)
    collection = read_collection(sample.images, sample.concepts, names=sample.concept_names)
    build_index(collection, tmp_path / "concept-index", make_embedder())
    shutil.copytree(sample.images, tmp_path / "images")
    shutil.copy(min(sample.images.glob("*.png")), tmp_path / "scan.png")
    names: dict[str, Any] = {}
    with contextlib.chdir(tmp_path), contextlib.redirect_stdout(io.StringIO()) as printed:
        for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
            exec(compile(block, "docs/python.md", "exec"), names)
    text = printed.getvalue()
    assert "Annotations of 4 images, of which 1 cannot be used" in text
    assert "because of phantom_" in text and "{'CHEST': 'chest'" in text
    assert names["run"].startswith("ID,CUIs\nscan,C")
    assert "new" in names["model"].classes_


def test_its_figures_are_measured() -> None:
    results = ROOT / "benchmarks" / "results"
    record = json.loads((results / "quality-radiology.json").read_text())
    rows = {row["key"]: row for row in record["rows"]}
    keys = ["sklearn-knn", "mlknn", "logistic-expected-f1", "ours-estimator"]
    shown = re.findall(r"\| \**(0\.\d{3})\** \|", PAGE)
    assert shown == [f"{rows[key]['f1']:.3f}" for key in keys]
    assert rows["ours"]["image_f1"] == rows["ours-estimator"]["image_f1"]
