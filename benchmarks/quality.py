"""How good the concepts are: retrieval against the strongest opponents, on the same images.

Every row gets the same training and test images. Whatever it tunes, it tunes on the training side
with whole groups (patients, studies) held out; the labels of the test side are out of its reach.

    python benchmarks/quality.py IMAGES CONCEPTS --split split.csv --train train --test test \\
        --groups sources.csv:patient --by sources.csv:source --name mine

ImageCLEFmedical Caption and ROCOv2 have a folder and a file for each side:

    python benchmarks/quality.py train/ train_concepts.csv \\
        --test-images valid/ --test-concepts valid_concepts.csv --name imageclef2025
    python benchmarks/quality.py 'data/train-*.parquet' --test-images 'data/test-*.parquet'

Results go to benchmarks/results/quality-NAME.{md,json,png} after every row, so a run that is
stopped has what it measured; vectors, pixels and the CNN's epochs are kept in --work and are not
computed again. The CNN's pixels take 0.5 MB an image there. Needs the extra "dev".
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

from common import RESULTS, machine
from quality_rows.cost import Ledger
from quality_rows.curves import learning_curves, split_sources
from quality_rows.data import Data, embed_side, known_group, number_groups
from quality_rows.measure import Truth, run_row
from quality_rows.registry import ROWS, Settings
from quality_rows.report import markdown, plot_bars, plot_curves

from annotator.collection import Collection, read_collection
from annotator.encoders.registry import DEFAULT
from annotator.errors import AnnotatorError
from annotator.tables.formats import read_column


def main(arguments: list[str] | None = None) -> None:
    """Parse, run, report."""
    options = _parser().parse_args(arguments)
    try:
        run(options)
    except AnnotatorError as error:
        sys.exit(str(error))


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure all rows that are asked for, saving after each; what was saved.

    Raises:
        AnnotatorError: A file cannot be read, or there is no such row or source.
    """
    names = options.rows.split(",") if options.rows else list(ROWS)
    unknown = [name for name in names if name not in ROWS]
    if unknown:
        raise AnnotatorError(f"There is no row {unknown[0]!r}.", f"There are: {', '.join(ROWS)}.")
    if options.split is None and options.test_images is None:
        raise AnnotatorError("Which images are the test side?", "Give --split, or --test-images.")
    sides = [_read(options, test=False), _read(options, test=True)]
    shared = {ref.id for ref in sides[0].images} & {ref.id for ref in sides[1].images}
    if shared:
        raise AnnotatorError(f"{len(shared)} images are on both sides, such as {min(shared)!r}.")
    settings = Settings(options.work, options.embedder, options.epochs)
    train, test, truth = load(sides[0], sides[1], settings, options)
    wanted = options.curves.split(",") if options.curves else []
    by_source = split_sources(wanted, train, test, truth, _sources(options))
    record = _describe(options, sides, train, truth)
    for name in names:
        row = run_row(ROWS[name](settings), train, test, truth)
        record["rows"].append({"key": name, **row})
        print(f"{row['name']:40s} {row['f1']:.4f}  {row['chosen']}", file=sys.stderr)
        save(record, options.results, options.name)
    if by_source:
        record["curves"] = learning_curves(by_source, settings)
        save(record, options.results, options.name)
    print(markdown(record))
    return record


def load(
    train: Collection, test: Collection, settings: Settings, options: argparse.Namespace
) -> tuple[Data, Data, Truth]:
    """Embed both sides; the test side without its labels, and the labels apart.

    Training images that cannot be decoded are left out, such test images count as annotated with
    nothing.
    """
    ledger = Ledger()
    data = []
    settings.work.mkdir(parents=True, exist_ok=True)
    for collection, side in ((train, "training"), (test, "test")):
        pictures, failed = embed_side(
            collection.images, settings.embedder, settings.work, f"Embedding the {side} side"
        )
        for id_, reason in failed.items():
            print(f"{side} image {id_} cannot be used: {reason}", file=sys.stderr)
        ids = [ref.id for ref in pictures.refs]
        labels = [frozenset(collection.concepts[id_]) for id_ in ids]
        groups = number_groups(ids, collection.groups)
        data.append(Data(pictures, groups, labels if side == "training" else None, ledger))
    truth = Truth(
        {ref.id: frozenset(test.concepts[ref.id]) for ref in test.images},
        _sources(options),
    )
    return data[0], data[1], truth


def save(record: dict[str, Any], folder: Path, name: str) -> None:
    """Write quality-NAME.json, .md and .png, and -curves.png where there are curves."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"quality-{name}"
    lines = [f'"{key}": {json.dumps(value)}' for key, value in record.items() if key != "rows"]
    rows = ",\n".join(json.dumps(row) for row in record["rows"])
    text = "{" + ",\n".join([*lines, f'"rows": [\n{rows}\n]']) + "}\n"
    path.with_suffix(".json").write_text(text)
    path.with_suffix(".md").write_text(markdown(record))
    plot_bars(record, path.with_suffix(".png"))
    if record["curves"]:
        plot_curves(record["curves"], path.with_name(f"{path.name}-curves.png"))


def _read(options: argparse.Namespace, *, test: bool) -> Collection:
    apart = test and options.test_images is not None
    side = options.test if test else options.train
    collection = read_collection(
        options.test_images if apart else options.images,
        options.test_concepts if apart else options.concepts,
        groups=options.groups,
        split=None if options.test_images is not None else options.split,
        only=None if options.test_images is not None else side,
    )
    for line in collection.report():
        print(line, file=sys.stderr)
    return collection


def _sources(options: argparse.Namespace) -> dict[str, str]:
    return read_column(options.by) if options.by else {}


def _describe(
    options: argparse.Namespace, sides: list[Collection], train: Data, truth: Truth
) -> dict[str, Any]:
    known = {cui for labels in train.labels for cui in labels}
    wanted = Counter(cui for labels in truth.labels.values() for cui in labels)
    unseen = {cui: n for cui, n in wanted.items() if cui not in known}
    groups = [
        {known_group(side.groups.get(ref.id, "")) for ref in side.images} - {""} for side in sides
    ]
    if groups[0] & groups[1]:
        common = len(groups[0] & groups[1])
        print(f"Caution: {common} groups have images on both sides.", file=sys.stderr)
    return {
        "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": {name: version(name) for name in ("scikit-learn", "scikit-image", "scipy")},
        "embedder": options.embedder,
        "epochs": options.epochs,
        "collection": {
            "train": len(train),
            "test": len(truth.labels),
            "concepts": len(known),
            "unseen_concepts": len(unseen),
            "unseen_annotations": sum(unseen.values()),
            "groups_on_both_sides": len(groups[0] & groups[1]),
        },
        "image_ids": list(truth.labels),
        "rows": [],
        "curves": [],
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add("images", help="folder, glob or Parquet files; of the training side or of both")
    add("concepts", nargs="?", help="ground truth of any year (not with Parquet files)")
    add("--split", help="FILE[:COLUMN] with each image's side")
    add("--train", default="train", help="the training side's name (default: train)")
    add("--test", default="test", help="the test side's name (default: test)")
    add("--test-images", help="the test side, where it lies apart")
    add("--test-concepts", help="its ground truth")
    add("--groups", help="FILE[:COLUMN] with each image's patient or study")
    add("--by", help="FILE[:COLUMN] with each image's source, for scores by source")
    add("--rows", help=f"some of {', '.join(ROWS)}")
    add("--curves", help="sources of --by for learning curves, separated by commas")
    add("--epochs", type=int, default=10, help="of the CNN (default: 10)")
    add("--embedder", default=DEFAULT, help=f"default: {DEFAULT}")
    add("--name", default="run", help="of the result files")
    add("--results", type=Path, default=RESULTS, help="folder of the result files")
    work = Path.home() / ".cache" / "annotator-quality"
    add("--work", type=Path, default=work, help=f"folder for what is kept (default: {work})")
    return parser


if __name__ == "__main__":
    main()
