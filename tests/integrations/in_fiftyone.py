"""Runs docs/fiftyone.md in FiftyOne, changes labels as people do in its App, and says what it saw.

Run by FiftyOne's own Python, in the folder with `train-fiftyone`; its argument is docs/fiftyone.md.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from secantus import SecantusDBServer


def main(page: str) -> None:
    blocks = re.findall(r"```python\n(.*?)```", Path(page).read_text(encoding="utf-8"), re.DOTALL)
    with (
        tempfile.TemporaryDirectory() as home,
        SecantusDBServer(storage_path=f"{home}/db") as server,
    ):
        os.environ |= {
            "FIFTYONE_DATABASE_URI": server.uri,
            "FIFTYONE_DATABASE_VALIDATION": "false",
            "FIFTYONE_DO_NOT_TRACK": "true",
            "FIFTYONE_SHOW_PROGRESS_BARS": "false",
            "HOME": home,
        }
        names: dict[str, Any] = {}
        load, look, take_back = (block.replace("fo.launch_app(dataset)", "") for block in blocks)
        for block in (load, look):
            exec(compile(block, page, "exec"), names)
        seen = looked_at(names["dataset"], home)
        correct(names["dataset"])
        exec(compile(take_back, page, "exec"), names)
        print(json.dumps(seen))


def looked_at(dataset: Any, home: str) -> dict[str, object]:
    import fiftyone as fo
    import numpy as np
    from fiftyone import ViewField as F

    ids = dataset.values("image_id")
    vectors = np.stack(dataset.values("embedding"))
    alike = dataset.sort_by_similarity(dataset.first().id, k=4, brain_key="similarity")
    dataset.compute_metadata()
    kind = fo.types.FiftyOneDataset
    dataset.export(export_dir=f"{home}/again", export_media=False, dataset_type=kind)
    again = fo.Dataset.from_dir(f"{home}/again", dataset_type=kind, name="again")
    labels = "predictions.classifications.label"
    return {
        "version": fo.__version__,
        "fields": {name: type(one).__name__ for name, one in dataset.get_field_schema().items()},
        "info": dataset.info,
        "image_id": ids,
        "group_id": dataset.values("group_id"),
        "tags": dataset.count_values("tags"),
        "widths": dataset.values("metadata.width"),
        "predicted": dataset.values("predictions.classifications.cui"),
        "confidence": dataset.values("predictions.classifications.confidence"),
        "known": dataset.values("ground_truth.classifications.label"),
        "f1": dataset.values("f1"),
        "wrong": len(dataset.filter_labels("predictions", F("eval") == "fp")),
        "alike": alike.values("image_id"),
        "nearest": [ids[row] for row in np.argsort(-(vectors @ vectors[0]))[:4]],
        "norms": [float(norm) for norm in np.linalg.norm(vectors, axis=1)],
        "runs": dataset.list_brain_runs(),
        "again": again.values(labels) == dataset.values(labels),
    }


def correct(dataset: Any) -> None:
    """As somebody who has seen the wrong label of the first image, and the right one."""
    import fiftyone as fo

    sample = dataset.first()
    labels = sample.ground_truth.classifications
    labels[:] = [label for label in labels if label.label != "Waves"]
    labels.append(fo.Classification(label="Same (C0000000)"))
    sample.tags.append("corrected")
    sample.save()


if __name__ == "__main__":
    main(*sys.argv[1:])
