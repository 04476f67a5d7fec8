"""`annotator caption`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from annotator.cli.console import EXIT_OK, EXIT_PARTIAL, say, say_failed, write_result
from annotator.cli.images import annotate_images, asking_options, given_images, which_options
from annotator.cli.options import file_path, index_option, voting_of
from annotator.errors import AnnotatorError

if TYPE_CHECKING:
    from index.protocols import IndexLocation


@click.command("caption")
@click.argument("images")
@index_option
@click.option(
    "--method",
    type=click.Choice(["consensus", "nearest"]),
    default="consensus",
    show_default=True,
    help="The caption most like all the neighbours', or the nearest case's.",
)
@click.option("--k", type=click.IntRange(1), help="Neighbours whose captions are compared.")
@click.option("--beta", type=click.FloatRange(0), help="How sharply their weight falls.")
@click.option("--zip", "zipped", is_flag=True, help="A zip that holds submission.csv.")
@click.option("--output", type=file_path(dir_okay=False), help="Write there instead of stdout.")
@which_options
@asking_options
def caption_command(images: str, place: IndexLocation, **options: Any) -> int:
    """Caption IMAGES with the words of their nearest cases and print the run, `ID,Caption`.

    Of the neighbours' captions the one with the highest expected ROUGE-1 under their votes is
    taken, as it is; nothing is made up. The index must have been built with --captions. Without --k
    and --beta, neighbours count as they do for concepts. An image that cannot be used, or whose
    neighbours have no captions, gets an empty one.

    \b
    annotator caption test/ > captions.csv
    annotator caption test/ --method nearest > nearest.csv
    annotator evaluate captions.csv test_captions.csv --captions --against nearest.csv
    """
    from annotator.indexing.metadata import IndexMetadata
    from annotator.knn.caption import choose_caption
    from annotator.tables.captions import render_captions
    from annotator.tables.run import zip_run

    refs = given_images(images, options)
    render_captions((ref.id, "") for ref in refs)  # refuses bad ids before the work is done
    stored = place.open(whole=options["verify"], device=options["device"])
    if "captions" not in stored.manifest.columns:
        raise AnnotatorError(
            f"{place} has no captions.",
            "Build it with them: annotator build-index IMAGES CONCEPTS --captions captions.csv",
        )
    voting = voting_of(options, IndexMetadata.of(stored).voting)
    rows: list[tuple[str, str]] = []
    failed: list[tuple[str, str]] = []
    without: list[str] = []
    for annotation in annotate_images(
        place, stored, refs, voting, options, failed, with_neighbors=True
    ):
        captions = [neighbor.caption for neighbor in annotation.neighbors]
        weights = [neighbor.weight for neighbor in annotation.neighbors]
        choice = choose_caption(captions, weights, options["method"])
        if choice is None and annotation.error is None:
            without.append(annotation.image_id)
        rows.append((annotation.image_id, captions[choice.position] if choice else ""))
    text = render_captions(rows)
    write_result(zip_run(text) if options["zipped"] else text, options["output"])
    say_failed(failed)
    if without:
        say(
            f"Warning: {len(without)} images have an empty caption, since none of their neighbours "
            f"has one: {', '.join(without[:3])}{', …' if len(without) > 3 else ''}"
        )
    say(f"Next: annotator evaluate {options['output'] or 'captions.csv'} TRUE_CAPTIONS --captions")
    return EXIT_PARTIAL if failed else EXIT_OK
