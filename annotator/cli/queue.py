"""`annotator queue`."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from annotator.cli.annotate import addresses
from annotator.cli.console import say, write_result
from annotator.cli.image_report import ImageReport
from annotator.cli.inference import InferenceOptions, inference_options, reported
from annotator.cli.options import (
    SelectionOptions,
    index_option,
    is_given,
    output_option,
    selection_options,
    url_prefix_option,
)
from annotator.cli.sections import Command, option
from annotator.cli.vectors import VectorOptions, images_or, vector_options

if TYPE_CHECKING:
    from annotator.images.ref import ImageRef
    from annotator.queue.curve import Left
    from annotator.queue.rank import NewImages, Order, Queue
    from annotator.vectors.table import VectorTable
    from index.protocols import Index, IndexLocation


@click.command("queue", cls=Command, short_help="Which images to review next.")
@click.argument("images", required=False)
@index_option
@vector_options
@option(
    "Output",
    "--budget",
    type=click.IntRange(1),
    default=200,
    help="Number of images to review.",
)
@option(
    "Output",
    "--order",
    type=click.Choice(["gain", "doubt"]),
    default="gain",
    help="Of new images: gain counts how many others are like an image, and spreads over the "
    "unlike; doubt takes the least sure ones.",
)
@option(
    "Output",
    "--format",
    "format_",
    type=click.Choice(["csv", "json", "label-studio"]),
    default="csv",
    help="Table, JSON with the curve, or tasks for Label Studio.",
)
@url_prefix_option
@output_option
@selection_options
@inference_options
def queue_command(
    images: str | None,
    place: IndexLocation,
    given: VectorOptions,
    budget: int,
    order: Order,
    format_: str,
    url_prefix: str,
    output: Path | None,
    selection: SelectionOptions,
    inference: InferenceOptions,
) -> int:
    """Queue images for review, those first from which F1 gains most.

    With IMAGES (folder, file, glob, list file, Parquet) or --vectors, new images: those of which
    the index is least sure, and that many others are like; of near-copies one. How good the rest is
    if the least sure ones are reviewed is said on stderr. Without, images of the index whose labels
    their neighbours contradict and that nobody has corrected yet.

    \b
    annotator queue archive/ > queue.csv
    annotator queue archive/ --budget 50 --format label-studio > tasks.json
    annotator queue > doubtful.csv
    """
    from annotator.cli.console import EXIT_OK

    if is_given("url_prefix") and format_ != "label-studio":
        raise click.UsageError("--url-prefix requires --format label-studio.")
    inference.make_runner()  # fail early
    stored = place.open(whole=inference.verify, device=inference.device)
    report = ImageReport()
    curve: list[Left] = []
    refs: list[ImageRef] = []
    if images is None and given.vectors is None:
        queue = _of_the_index(place, stored, budget)
    else:
        from annotator.queue.rank import rank_new

        vectors = given.read(selection.ids_file, ids_select=True)
        refs, _ = selection.find_grouped(images_or(vectors, images), None)
        new, curve = _new(place, stored, refs, vectors, inference, report)
        queue = rank_new(new, budget, order=order)
    if format_ == "label-studio":
        address_of = addresses(refs, images, url_prefix)
        tasks = _tasks(queue, stored, address_of, f"{place} {stored.version}")
        text = json.dumps(tasks, indent=1, ensure_ascii=False) + "\n"
    else:
        text = _json(queue, curve) if format_ == "json" else _csv(queue)
    write_result(text, output)
    _say(queue, curve)
    if refs and format_ == "csv" and output is not None:
        say(f"Next: correct the column CUIs of {output}; annotator add takes it as the labels.")
    report.say(inference.report)
    return report.exit_code if refs else EXIT_OK


def _of_the_index(place: IndexLocation, stored: Index, budget: int) -> Queue:
    from annotator.indexing.metadata import IndexMetadata
    from annotator.queue.rank import rank_indexed

    reviewed = {one.image_id for one in place.history()}
    return rank_indexed(stored, IndexMetadata.of(stored).voting, budget, reviewed=reviewed)


def _new(
    place: IndexLocation,
    stored: Index,
    refs: list[ImageRef],
    vectors: VectorTable | None,
    inference: InferenceOptions,
    report: ImageReport,
) -> tuple[NewImages, list[Left]]:
    """New images as the index sees them, and what is left of them."""
    from annotator.errors import AnnotatorError
    from annotator.pipeline import Annotator
    from annotator.queue.curve import Lost
    from annotator.queue.rank import NewImages
    from index.progress import track

    embedder = inference.load_embedder(stored, vectors)
    annotator = Annotator(stored, embedder)
    runner = vectors.embed if vectors else inference.make_runner()
    with inference.open_cache(place, embedder, vectors) as cache:
        results = runner(
            refs,
            embedder,
            cache=cache,
            batch_size=inference.batch_size,
            workers=inference.workers,
        )
        with contextlib.closing(results):
            embedded = track(results, total=len(refs), label="Annotating")
            new = NewImages.of(annotator, reported(embedded, inference, report))
    if new.in_index:
        n = len(new.in_index)
        say(f"{n:,} images are in the index already and left out, such as {new.in_index[0]}.")
    elif not new.ids:
        raise AnnotatorError("None of the images could be used.", "Look at them in a viewer.")
    calibration = annotator.calibration()
    lost = Lost.of(
        stored, annotator.voting, None if calibration is None else calibration.expected_f1
    )
    return new, [] if lost is None or not new.ids else lost.curve(new.expected_f1)


def _csv(queue: Queue) -> str:
    from annotator.tables.spreadsheets import harmless

    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(("ID", "gain", "doubt", "CUIs", "reason"))
    for item in queue.items:
        concepts = ";".join(concept for concept, _ in item.concepts)
        texts = map(harmless, (item.image_id, concepts, item.reason))
        image_id, concepts, reason = texts
        writer.writerow((image_id, f"{item.gain:.4f}", f"{item.doubt:.4f}", concepts, reason))
    return file.getvalue()


def _json(queue: Queue, curve: Sequence[Left]) -> str:
    record = {
        "items": [
            {
                "id": item.image_id,
                "gain": round(item.gain, 6),
                "doubt": round(item.doubt, 6),
                "concepts": [
                    {"cui": concept, "score": round(score, 6)} for concept, score in item.concepts
                ],
                "reason": item.reason,
            }
            for item in queue.items
        ],
        "total": queue.total,
        "left": [
            {name: round(value, 6) for name, value in asdict(point).items()} for point in curve
        ],
    }
    return json.dumps(record, indent=1, ensure_ascii=False) + "\n"


def _tasks(queue: Queue, stored: Index, address_of: Any, model: str) -> list[dict[str, Any]]:
    from annotator.tables.label_studio import Shown, task

    return [
        task(
            item.image_id,
            address_of(item.image_id),
            [Shown(cui, stored.names.get(cui, ""), score) for cui, score in item.concepts],
            score=round(1 - item.doubt, 4),
            model=model,
        )
        for item in queue.items
    ]


def _say(queue: Queue, curve: Sequence[Left]) -> None:
    from annotator.render.text_table import Row, columns

    say(f"{len(queue.items):,} of {queue.total:,} images to review.")
    if not curve:
        return
    header = ["reviewed", "expected F1", "F1 of the rest", "at least", "F1 of all at least"]
    rows: list[Row] = [
        [left.reviewed, f"{left.below:.3f}", left.expected, left.rest, left.whole] for left in curve
    ]
    say("If the least sure images are reviewed, those of an expected F1 below:")
    for line in columns(header, rows, decimals=3):
        say(line)
