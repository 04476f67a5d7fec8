"""How good the concepts are: retrieval against the strongest opponents, on the same images.

Every method gets the same training and test images. Whatever it tunes, it tunes on the training
side with whole groups (patients, studies) held out; the labels of the test side are out of its
reach.

    python -m benchmarks.quality IMAGES CONCEPTS --split split.csv --train train --test test \\
        --groups sources.csv:patient --by sources.csv:source --name mine

ImageCLEFmedical Caption and ROCOv2 have a folder and a file for each side:

    python -m benchmarks.quality train/ train_concepts.csv \\
        --test-images valid/ --test-concepts valid_concepts.csv --name imageclef2025
    python -m benchmarks.quality 'data/train-*.parquet' --test-images 'data/test-*.parquet'

Results go to benchmarks/results/quality-NAME.{md,json,png} after every method, so a run that is
stopped has what it measured; with --update the rows of other methods stay as they were. Vectors,
pixels and trained networks are kept in --work and are not computed again. The CNN's pixels take 0.5
MB an image there, and a --backbone's 0.9 MB. Needs the extra "dev".
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotator.collection import Collection, read_collection
from annotator.encoders.registry import DEFAULT
from annotator.errors import AnnotatorError
from annotator.tables.formats import read_column
from benchmarks.plots import plot_bars
from benchmarks.quality.data import Data, embed_side, known_group
from benchmarks.quality.methods import METHODS, SINGLE, Settings
from benchmarks.quality.scores import Truth, paired_difference, run_method
from benchmarks.records import RESULTS, machine, now


def main(arguments: list[str] | None = None) -> None:
    """Measure all methods that are asked for, and print the table."""
    options = _parser().parse_args(arguments)
    try:
        print(markdown(run(options)))
    except AnnotatorError as error:
        sys.exit(str(error))


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure all methods that are asked for, saving after each; what was saved.

    Raises:
        AnnotatorError: A file cannot be read, or there is no such method or source.
    """
    possible = [name for name in METHODS if name != "finetuned-timm" or options.backbone]
    names = options.methods.split(",") if options.methods else possible
    for name in [*names, *([options.against] if options.against else [])]:
        if name not in METHODS:
            raise AnnotatorError(
                f"There is no method {name!r}.", f"There are: {', '.join(METHODS)}."
            )
    if options.split is None and options.test_images is None:
        raise AnnotatorError("Which images are the test side?", "Give --split, or --test-images.")
    sides = [_read(options, test=False), _read(options, test=True)]
    shared = {ref.id for ref in sides[0].images} & {ref.id for ref in sides[1].images}
    if shared:
        raise AnnotatorError(f"{len(shared)} images are on both sides, such as {min(shared)!r}.")
    settings = Settings(options.work, options.embedder, options.epochs, options.backbone)
    train, test = (embedded(side, settings, tested=side is sides[1]) for side in sides)
    sources = read_column(options.by) if options.by else {}
    ids = [ref.id for ref in sides[1].images]
    groups = dict(zip(ids, _groups(sides[1], ids).tolist(), strict=True))
    truth = Truth({id_: frozenset(sides[1].concepts[id_]) for id_ in ids}, sources, groups)
    record = _describe(options, sides, train, truth)
    if options.update:
        record = _earlier(record, options.results / f"quality-{options.name}.json")
        truth = replace(truth, labels={id_: truth.labels[id_] for id_ in record["image_ids"]})
    for name in names:
        row = run_method(METHODS[name](settings), train, test, truth)
        _put(record["rows"], {"key": name, **row})
        compare_rows(record, truth, options.against)
        print(f"{row['name']:40s} {row['f1']:.4f}  {row['chosen']}", file=sys.stderr)
        save(record, options.results, options.name)
    return record


def _earlier(record: dict[str, Any], path: Path) -> dict[str, Any]:
    """What was saved before, of the same images and encoder.

    Raises:
        AnnotatorError: Nothing was, or it is of others.
    """
    try:
        earlier: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        raise AnnotatorError(f"There is no {path} to update.", "Leave out --update.") from None
    if sorted(earlier["image_ids"]) != sorted(record["image_ids"]):
        raise AnnotatorError(f"{path} is of other images.", "Give another --name.")
    for what in ("embedder", "collection"):
        if earlier[what] != record[what]:
            raise AnnotatorError(f"{path} is of another {what}.", "Give another --name.")
    return earlier


def _put(rows: list[dict[str, Any]], row: dict[str, Any]) -> None:
    """Put a row in the place of its method's earlier one, or behind those of the methods before."""
    keys = [other["key"] for other in rows]
    if row["key"] in keys:
        rows[keys.index(row["key"])] = row
        return
    before = list(METHODS)[: list(METHODS).index(row["key"])]
    rows.insert(max((i for i, key in enumerate(keys, 1) if key in before), default=0), row)


def compare_rows(record: dict[str, Any], truth: Truth, against: str | None) -> None:
    """Give each row its paired difference to one: `against`, or the best single fine-tuned one."""
    rows = {row["key"]: row for row in record["rows"]}
    single = [key for key in SINGLE if key in rows]
    key = against or max(single, key=lambda key: rows[key]["f1"], default=None)
    record["against"] = key if key in rows else None
    groups = [str(truth.groups.get(id_, "")) for id_ in record["image_ids"]]
    for row in record["rows"]:
        row.pop("against", None)
        if record["against"] not in (None, row["key"]):
            others = rows[record["against"]]["image_f1"]
            row["against"] = paired_difference(row["image_f1"], others, groups)


def embedded(side: Collection, settings: Settings, *, tested: bool) -> Data:
    """The images of a side that can be decoded; the test side without its labels."""
    label = "Embedding the test side" if tested else "Embedding the training side"
    pictures, failed = embed_side(side.images, settings.embedder, settings.work, label)
    for id_, reason in failed.items():
        print(f"image {id_} cannot be used: {reason}", file=sys.stderr)
    ids = [ref.id for ref in pictures.refs]
    labels = None if tested else [frozenset(side.concepts[id_]) for id_ in ids]
    return Data(pictures, _groups(side, ids), labels)


def _groups(side: Collection, ids: Sequence[str]) -> NDArray[np.int64]:
    """The group of each image as a number; an unknown one is one of its own."""
    named = [(known_group(side.groups.get(id_, "")), id_) for id_ in ids]
    keys = [(name, "") if name else ("", id_) for name, id_ in named]
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return np.array([numbers[key] for key in keys], np.int64)


def save(record: dict[str, Any], folder: Path, name: str) -> None:
    """Write quality-NAME.json, .md and .png."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"quality-{name}"
    lines = [f'"{key}": {json.dumps(value)}' for key, value in record.items() if key != "rows"]
    rows = ",\n".join(json.dumps(row) for row in record["rows"])
    text = "{" + ",\n".join([*lines, f'"rows": [\n{rows}\n]']) + "}\n"
    path.with_suffix(".json").write_text(text)
    path.with_suffix(".md").write_text(markdown(record))
    found = record["rows"]
    plot_bars(
        [row["name"] for row in found],
        [row["f1"] for row in found],
        [row["interval"] for row in found],
        [row["key"].startswith("ours") for row in found],
        f"F1, mean over {record['collection']['test']} test images, 95 % interval",
        path.with_suffix(".png"),
    )


def markdown(record: dict[str, Any]) -> str:
    """The whole table, with what one has to know to read it."""
    rows, sides, costs = record["rows"], record["collection"], record["machine"]
    sources, bands = list(rows[0]["by"]), rows[0]["bands"]
    stages = ("build", "predict")
    clocks = {"seconds": "s", "cpu_seconds": "CPU s", "gpu_seconds": "GPU s"}
    if not any(row[stage].get("gpu_seconds") for row in rows for stage in stages):
        del clocks["gpu_seconds"]
    against = record.get("against")
    head = ["", "F1", "95 %", *(["against"] if against else []), *sources, "macro", *bands]
    head += [f"{stage} {unit}" for stage in stages for unit in clocks.values()]
    lines = [f"| {' | '.join(head)} |", "|" + " --- |" + " ---: |" * (len(head) - 1)]
    for row in rows:
        cells = [row["name"], _figure(row["f1"]), "–".join(_figure(e) for e in row["interval"])]
        cells += [_difference(row.get("against"))] if against else []
        cells += [_figure(row["by"][source]["f1"]) for source in sources]
        cells += [_figure(row["macro_f1"])]
        cells += [_figure(band["f1"]) for band in row["bands"].values()]
        cells += [f"{row[stage].get(key, 0.0):.1f}" for stage in stages for key in clocks]
        lines.append(f"| {' | '.join(cells)} |")
    counts = "; ".join(
        f"{name}: {band['concepts']} concepts, {band['annotations']} true annotations"
        for name, band in bands.items()
    )
    notes = [
        f"{sides['train']} training and {sides['test']} test images, {sides['concepts']} concepts. "
        f"Encoder {record['embedder']}. {costs['cpu']}, {costs['cores']} cores.",
        "F1: mean over all test images of the F1 of its concepts, with its 95 % bootstrap "
        "interval. Macro: mean over the concepts of the test side of each one's F1.",
        "Bands: micro F1 over the concepts that so many training images have (" + counts + "). "
        f"{sides['unseen_concepts']} concepts of the test side, with "
        f"{sides['unseen_annotations']} annotations, occur on no training image.",
        "Build: all that is done once, tuning and embedding included; every row is charged as if "
        "it had run alone. Everything is tuned on the training side.",
    ]
    if against:
        name = next(row["name"] for row in rows if row["key"] == against)
        notes.append(
            f"Against: F1 less that of “{name}” on the same images, with its 95 % bootstrap "
            "interval over whole groups."
        )
    if "gpu_seconds" in clocks:
        notes.append("GPU s: seconds on the clock of steps that ran on the GPU.")
    return "\n".join([*lines, "", *(note + "\n" for note in notes)])


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _difference(found: dict[str, Any] | None) -> str:
    if found is None:
        return "–"
    low, high = found["interval"]
    return f"{found['difference']:+.3f} ({low:+.3f} to {high:+.3f})"


def _read(options: argparse.Namespace, *, test: bool) -> Collection:
    apart = options.test_images is not None
    collection = read_collection(
        options.test_images if test and apart else options.images,
        options.test_concepts if test and apart else options.concepts,
        groups=options.groups,
        split=None if apart else options.split,
        only=None if apart else options.test if test else options.train,
    )
    print(*collection.report(), sep="\n", file=sys.stderr)
    return collection


def _describe(
    options: argparse.Namespace, sides: list[Collection], train: Data, truth: Truth
) -> dict[str, Any]:
    seen = {cui for labels in train.labels for cui in labels}
    wanted = Counter(cui for labels in truth.labels.values() for cui in labels)
    unseen = {cui: n for cui, n in wanted.items() if cui not in seen}
    groups = [
        {known_group(side.groups.get(ref.id, "")) for ref in side.images} - {""} for side in sides
    ]
    common = len(groups[0] & groups[1])
    if common:
        print(f"Caution: {common} groups have images on both sides.", file=sys.stderr)
    return {
        "when": now(),
        "machine": machine(),
        "embedder": options.embedder,
        "epochs": options.epochs,
        "collection": {
            "train": len(train),
            "test": len(truth.labels),
            "concepts": len(seen),
            "unseen_concepts": len(unseen),
            "unseen_annotations": sum(unseen.values()),
            "groups_on_both_sides": common,
        },
        "image_ids": list(truth.labels),
        "rows": [],
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
    add("--methods", help=f"some of {', '.join(METHODS)}")
    add("--epochs", type=int, default=10, help="of the CNN (default: 10)")
    add("--backbone", help="timm:NAME@FILE, one more network to fine-tune")
    best = "the best single fine-tuned network"
    add("--against", help=f"method that all others are compared with (default: {best})")
    add("--embedder", default=DEFAULT, help=f"default: {DEFAULT}")
    add("--name", default="run", help="of the result files")
    add("--update", action="store_true", help="keep the other rows of the result files")
    add("--results", type=Path, default=RESULTS, help="folder of the result files")
    work = Path.home() / ".cache" / "annotator-quality"
    add("--work", type=Path, default=work, help=f"folder for what is kept (default: {work})")
    return parser


if __name__ == "__main__":
    main()
