"""The consensus caption against the nearest case's, by ROUGE-1 with a paired interval.

The test side is read once, with what the index was tuned to for concepts.

    python -m benchmarks.features.captions --images DIR --concepts FILE --captions FILE \\
        --split FILE --groups FILE:COLUMN --name NAME

Without --captions, captions are composed from the names of the concepts (--names), in a wording
drawn for each image. Such captions say whether the method works, and little about real ones.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from annotator.tables.formats import read_concepts, read_names
from benchmarks.features.cli import annotator, table
from benchmarks.records import save

OPENINGS = ("{} showing {}.", "{}: {}.", "This {} demonstrates {}.", "{}. There is {}.")


def main(arguments: list[str] | None = None) -> None:
    """Build, caption the test side by both methods, and compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    for option in ("--images", "--concepts", "--split"):
        parser.add_argument(option, required=True)
    parser.add_argument("--captions", help="Table with each image's caption.")
    parser.add_argument("--names", help="Without captions: names of the concepts.")
    parser.add_argument("--groups", help="FILE:COLUMN, each image's patient or study.")
    parser.add_argument("--by", help="FILE:COLUMN, ROUGE-1 for each of its values, too.")
    parser.add_argument("--name", required=True, help="Of the captions, for the results.")
    options = parser.parse_args(arguments)
    if not options.captions and not options.names:
        parser.error("give --captions or --names")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        captions = options.captions or composed(options.concepts, options.names, folder)
        index: list[str | Path] = ["--index", folder / "index"]
        test = ["--split", options.split, "--only", "test"]
        groups = ["--groups", options.groups] if options.groups else []
        train: list[str | Path] = [
            "--split",
            options.split,
            "--only",
            "train",
            "--captions",
            captions,
        ]
        annotator("build-index", options.images, options.concepts, *index, *train, *groups)
        for method in ("consensus", "nearest"):
            output: list[str | Path] = ["--output", folder / f"{method}.csv", "--method", method]
            annotator("caption", options.images, *index, *test, *output)
        by = ["--by", options.by] if options.by else []
        runs: list[str | Path] = [
            folder / "consensus.csv",
            captions,
            "--against",
            folder / "nearest.csv",
        ]
        said = annotator("evaluate", *runs, "--captions", "--json", *test, *by)
    scores = json.loads(said)["measures"]["rouge1"]
    record = {"captions": options.name, "side": "test", "method": "consensus", **scores}
    print(json.dumps(record, indent=1))
    print(f"raw figures: {save('captions', [record])}")


def composed(concepts: str, names: str, folder: Path) -> Path:
    """A file with a sentence for each image, of the names of its concepts."""
    known = read_names(names)
    captions = {id_: compose(id_, cuis, known) for id_, cuis in read_concepts(concepts).items()}
    return table(folder / "captions.csv", "Caption", captions)


def compose(image_id: str, cuis: Sequence[str], names: Mapping[str, str]) -> str:
    """A sentence of the concepts' names, their order and its opening drawn by the id."""
    if not cuis:
        return "No finding."
    rng = np.random.default_rng(zlib.crc32(image_id.encode()))
    first, *rest = [names.get(cui, cui).lower() for cui in rng.permutation(list(cuis))]
    return OPENINGS[rng.integers(len(OPENINGS))].format(first, ", ".join(rest) or "nothing else")


if __name__ == "__main__":
    main()
