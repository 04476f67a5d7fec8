"""`annotator caption`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from annotator.cli.console import say, write_result
from annotator.cli.image_report import ImageReport
from annotator.cli.inference import InferenceOptions, annotate_images, inference_options
from annotator.cli.options import (
    SelectionOptions,
    VotingOptions,
    for_a_run,
    index_option,
    output_option,
    selection_options,
    zip_option,
)
from annotator.cli.sections import Command, option
from annotator.errors import AnnotatorError

if TYPE_CHECKING:
    from annotator.knn.caption import Method
    from index.protocols import IndexLocation


@click.command(
    "caption", cls=Command, short_help="Print captions of images, in the words of similar cases."
)
@click.argument("images")
@index_option
@option(
    "Voting",
    "--method",
    type=click.Choice(["consensus", "nearest"]),
    default="consensus",
    help="Consensus caption of the neighbours, or the caption of the nearest one.",
)
@option(
    "Voting",
    "--k",
    type=click.IntRange(1),
    help="Number of neighbours to compare.",
)
@option("Voting", "--beta", type=click.FloatRange(0), help="Sharpness of the weight kernel.")
@zip_option
@output_option
@selection_options
@inference_options
def caption_command(
    images: str,
    place: IndexLocation,
    method: Method,
    k: int | None,
    beta: float | None,
    zipped: bool,
    output: Path | None,
    selection: SelectionOptions,
    inference: InferenceOptions,
) -> int:
    """Caption IMAGES with captions of their nearest cases and print the run, `ID,Caption`.

    Selects, verbatim, the neighbour's caption with the highest expected ROUGE-1 under the
    neighbours' votes. Needs an index built with --captions. --k and --beta default to the values
    for concepts. Unusable images, and images whose neighbours have no captions, get an empty one.

    \b
    annotator caption test/ > captions.csv
    annotator caption test/ --method nearest > nearest.csv
    annotator evaluate captions.csv test_captions.csv --captions --against nearest.csv
    """
    from annotator.indexing.metadata import IndexMetadata
    from annotator.knn.caption import choose_caption
    from annotator.tables.captions import render_captions
    from annotator.tables.run import id_fault, zip_run

    inference.make_runner()  # fail early
    refs = for_a_run(selection.find(images))
    stored = place.open(whole=inference.verify, device=inference.device)
    if "captions" not in stored.manifest.columns:
        raise AnnotatorError(
            f"{place} has no captions.",
            "Rebuild it with: annotator build-index IMAGES CONCEPTS --captions captions.csv",
        )
    voting = VotingOptions(k=k, beta=beta).override(IndexMetadata.of(stored).voting)
    rows: list[tuple[str, str]] = []
    report = ImageReport()
    without: list[str] = []
    for annotation in annotate_images(
        place,
        stored,
        refs,
        voting,
        inference,
        report,
        with_neighbors=True,
        keep_all=selection.ids_file is not None,
    ):
        captions = [neighbor.caption for neighbor in annotation.neighbors]
        weights = [neighbor.weight for neighbor in annotation.neighbors]
        choice = choose_caption(captions, weights, method)
        if choice is None and annotation.error is None:
            without.append(annotation.image_id)
        if not id_fault(annotation.image_id):
            rows.append((annotation.image_id, captions[choice.position] if choice else ""))
    text = render_captions(rows)
    write_result(zip_run(text) if zipped else text, output)
    report.say(inference.report)
    if without:
        say(
            f"Warning: {len(without)} images have an empty caption, since none of their neighbours "
            f"has a caption: {', '.join(without[:3])}{', …' if len(without) > 3 else ''}"
        )
    say(f"Next: annotator evaluate {output or 'captions.csv'} TRUE_CAPTIONS --captions")
    return report.exit_code
