"""`annotator search`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from annotator.cli.console import EXIT_OK, NO_THUMBNAILS, say, write_result
from annotator.cli.image_report import ImageReport
from annotator.cli.inference import InferenceOptions, inference_options
from annotator.cli.options import (
    GROUPS_METAVAR,
    SelectionOptions,
    file_path,
    index_option,
    output_option,
    query_selection_options,
)
from annotator.cli.sections import Command, option
from annotator.cli.vectors import VectorOptions, vector_options
from annotator.errors import AnnotatorError

if TYPE_CHECKING:
    from annotator.explore.search_report import Format
    from annotator.explore.similar import Without
    from annotator.images.ref import ImageRef
    from annotator.images.sources import IdFrom
    from annotator.knn.neighbors import Ranking
    from annotator.vectors.table import VectorTable
    from index.protocols import Index, IndexLocation

_Kind = Literal["image", "id", "concept", "text"]


@click.command("search", cls=Command)
@click.argument("query", required=False)
@index_option
@vector_options
@option(
    "Query", "--image", metavar="IMAGES", help="Cases similar to these images (as for `annotate`)."
)
@option("Query", "--id", metavar="ID", help="Cases similar to this image of the index.")
@option("Query", "--concept", metavar="CUI|NAME", help="Images of a concept.")
@option("Query", "--text", metavar="WORDS", help="Cases matching this text (open_clip encoders).")
@option("Query", "--k", type=click.IntRange(1), default=10, help="Number of cases to list.")
@option(
    "Query",
    "--without",
    type=click.Choice(["nothing", "itself", "group"]),
    help="Exclude the case with the image's own id, or its whole group (default: nothing; with "
    "--id itself).",
)
@option(
    "Query",
    "--groups",
    metavar=GROUPS_METAVAR,
    help="With --without group: patient or study of each image, if not in the index.",
)
@option(
    "Output",
    "--format",
    "format_",
    type=click.Choice(["table", "csv", "json", "trec"]),
    default="table",
    help="csv: ID,Similar, or images of a concept; json: JSON lines; trec: TREC run.",
)
@output_option
@option(
    "Output", "--out", "page", type=file_path(dir_okay=False), help="HTML page with the pictures."
)
@option(
    "Output", "--images", "cases", help="Indexed images, for thumbnails missing from the index."
)
@query_selection_options
@inference_options
def search_command(
    query: str | None,
    place: IndexLocation,
    given: VectorOptions,
    image: str | None,
    id: str | None,
    concept: str | None,
    text: str | None,
    k: int,
    without: Without | None,
    groups: str | None,
    format_: Format,
    output: Path | None,
    page: Path | None,
    cases: str | None,
    selection: SelectionOptions,
    inference: InferenceOptions,
) -> int:
    """Search the index by image, concept or text.

    QUERY means images if it is a path, a pattern or an image file name; otherwise a CUI, or a
    concept's name or part of it. A concept search lists exemplars and likely label errors: images
    without the concept whose neighbours have it, and images with it whose neighbours do not.

    \b
    annotator search scan.png
    annotator search "pleural effusion" --out effusion.html
    annotator search images/ --split split.csv --only test --k 100 --format trec > similar.txt
    annotator search --text "chest radiograph with a pacemaker"
    annotator search --vectors queries.npy --ids query_ids.txt --format csv
    """
    by: dict[_Kind, str | None] = {"image": image, "id": id, "concept": concept, "text": text}
    vectors = given.read(selection.ids_file, ids_select=True)
    kind, wanted = _meant(query, by) if vectors is None else _no_other(query, by)
    if without and kind not in ("image", "id"):
        raise click.UsageError("--without requires a search by images.")
    if groups and (without != "group" or kind != "image"):
        raise click.UsageError("--groups requires a search by images --without group.")
    if kind != "image" and (
        selection.ids_file or selection.split or selection.only or selection.where
    ):
        raise click.UsageError("--ids, --split, --only and --where require a search by images.")
    if format_ == "trec" and kind == "concept":
        raise click.UsageError("--format trec is for rankings; concepts have table, csv and json.")
    stored = place.open(whole=inference.verify, device=inference.device)
    if kind == "concept":
        return _search_concept(
            stored,
            wanted,
            k,
            format_,
            output,
            page,
            cases,
            selection.id_from,
            guessed=query is not None,
        )

    from annotator.explore.search_report import render_rankings

    refs: list[ImageRef] = []
    report = ImageReport()
    if kind == "image":
        inference.make_runner()  # fail early
        refs, found = selection.find_grouped(vectors or wanted, groups)
        group_of = found if groups else None
        without = without or "nothing"
        rankings = _by_images(refs, place, stored, k, without, group_of, inference, report, vectors)
    elif kind == "id":
        from annotator.explore.similar import rank_ids

        rankings = rank_ids(stored, [wanted], k, without=without or "itself")
    else:
        rankings = _by_text(wanted, stored, k, inference.embedder)
    write_result(render_rankings(rankings, format_, stored.names), output)
    if page is not None:
        from annotator.explore.search_page import rankings_page
        from annotator.render.thumbnails import thumbnails_of

        pictures = _pictures(stored, cases, selection.id_from)
        queries = pictures if kind == "id" else None
        if kind == "image" and vectors is None:
            queries = thumbnails_of(refs)
        write_result(rankings_page(rankings, stored.names, pictures, queries), page)
    report.say(inference.report)
    _say_next(rankings, format_, output, page)
    return report.exit_code


def _meant(query: str | None, given: dict[_Kind, str | None]) -> tuple[_Kind, str]:
    """Kind of the query, and the query."""
    queries = [(kind, value) for kind, value in given.items() if value]
    if len(queries) + (query is not None) != 1:
        raise click.UsageError("Give QUERY, or one of --image, --id, --concept and --text.")
    if query is None:
        return queries[0]
    from annotator.ids import image_extension

    path = Path(query).expanduser()
    is_image = (
        image_extension(query) != ""
        or path.suffix.lower() == ".parquet"
        or any(sign in query for sign in ("*", "?", "://"))
        or path.exists()
    )
    return "image" if is_image else "concept", query


def _no_other(query: str | None, given: dict[_Kind, str | None]) -> tuple[_Kind, str]:
    """The kind of a query by vectors, beside which there must be no other."""
    if query is not None or any(given.values()):
        raise click.UsageError("Give QUERY or --vectors.")
    return "image", ""


def _search_concept(
    stored: Index,
    wanted: str,
    k: int,
    format_: Format,
    output: Path | None,
    page: Path | None,
    cases: str | None,
    id_from: IdFrom,
    *,
    guessed: bool,
) -> int:
    from annotator.concepts.lookup import NoSuchConcept, find_concept
    from annotator.explore.concept import of_concept
    from annotator.explore.search_report import render_concept, shown
    from annotator.indexing.metadata import IndexMetadata

    try:
        cui = find_concept(wanted, stored.concepts, stored.names)
    except NoSuchConcept as error:
        if not guessed:
            raise
        raise AnnotatorError(
            f"{wanted!r} is neither a file nor one of the {len(stored.concepts):,} concepts of the "
            "index.",
            f"{error.hint} --text searches by free words.",
        ) from error
    found = of_concept(stored, IndexMetadata.of(stored).voting, cui, k=k)
    write_result(render_concept(found, format_, stored.names), output)
    if page is not None:
        from annotator.explore.search_page import concept_page

        write_result(concept_page(found, stored.names, _pictures(stored, cases, id_from)), page)
        say(f"Next: open {page} in a browser.")
    elif found.missing or found.wrong:
        say(
            f"Next: look at the images of {shown(cui, stored.names)} (--out concept.html), and "
            "correct wrong labels with annotator add IMAGES CONCEPTS --replace."
        )
    else:
        say("Next: --out concept.html shows the images; --k lists more.")
    return EXIT_OK


def _by_images(
    refs: Sequence[ImageRef],
    place: IndexLocation,
    stored: Index,
    k: int,
    without: Without,
    groups: Mapping[str, str] | None,
    inference: InferenceOptions,
    report: ImageReport,
    vectors: VectorTable | None,
) -> list[Ranking]:
    from annotator.explore.similar import rank_images
    from annotator.pipeline import Annotator

    embedder = inference.load_embedder(stored, vectors)
    rankings: list[Ranking] = []
    with inference.open_cache(place, embedder, vectors) as cache:
        ranked = rank_images(
            Annotator(stored, embedder),
            refs,
            k,
            without=without,
            groups=groups,
            cache=cache,
            batch_size=inference.batch_size,
            workers=inference.workers,
            runner=vectors.embed if vectors else inference.make_runner(),
        )
        for ref, ranking in zip(refs, ranked, strict=True):
            error = ranking.error
            report.add(ref.where, error, ranking.notes)
            if error is not None and error.is_no_image:
                continue
            if error is not None:
                inference.refuse_if_asked(ref, error, "leave it out")
            rankings.append(ranking)
    return rankings


def _by_text(wanted: str, stored: Index, k: int, embedder: str | None) -> list[Ranking]:
    from annotator.explore.text_search import TextSearch
    from annotator.knn.neighbors import Ranking, cases_of

    (cases,) = cases_of(TextSearch(stored, embedder).find([wanted], k))
    return [Ranking(wanted, cases)]


def _pictures(stored: Index, images: str | None, id_from: IdFrom) -> Callable[[str], bytes]:
    """Lookup of thumbnails by id: stored in the index, or made from `images`."""
    from annotator.images.sources import find_images
    from annotator.render.thumbnails import index_thumbnails, thumbnails_of

    if images is not None:
        return thumbnails_of(find_images(images, on_duplicate="first", id_from=id_from).images)
    if not stored.has_thumbnails:
        say(NO_THUMBNAILS)
    return index_thumbnails(stored)


def _say_next(
    rankings: Sequence[Ranking], format_: Format, output: Path | None, page: Path | None
) -> None:
    if page is not None:
        say(f"Next: open {page} in a browser.")
    elif format_ in ("csv", "trec"):
        path = output or "similar." + ("csv" if format_ == "csv" else "txt")
        say(f"Next: annotator evaluate {path} CONCEPTS --ranking")
    elif all(not ranking.cases for ranking in rankings):
        say("Next: --without nothing includes the image itself.")
    else:
        say("Next: --out similar.html shows the pictures; --format json lists every field.")
