"""`annotator search`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from annotator.cli.console import EXIT_OK, EXIT_PARTIAL, say, say_failed, write_result
from annotator.cli.images import (
    asking_options,
    given_cache,
    given_embedder,
    given_images,
    which_options,
)
from annotator.cli.options import file_path, index_option
from annotator.errors import AnnotatorError

if TYPE_CHECKING:
    from annotator.images.ref import ImageRef
    from annotator.knn.neighbors import Ranking
    from index.protocols import Index, IndexLocation


@click.command("search")
@click.argument("query", required=False)
@index_option
@click.option("--image", metavar="IMAGES", help="Cases like these images (as for `annotate`).")
@click.option("--id", metavar="ID", help="Cases like this image of the index.")
@click.option("--concept", metavar="CUI|NAME", help="The images of a concept.")
@click.option("--text", metavar="WORDS", help="Cases that fit these words (open_clip encoders).")
@click.option("--k", type=click.IntRange(1), default=10, show_default=True, help="Cases to list.")
@click.option(
    "--without",
    type=click.Choice(["nothing", "itself", "group"]),
    help="Leave out the case with the image's own id, or all of its group (default: nothing; with "
    "--id itself).",
)
@click.option(
    "--groups",
    metavar="FILE[:COLUMN]",
    help="With --without group: the images' patients or studies, if the index does not know them.",
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(["table", "csv", "json", "trec"]),
    default="table",
    show_default=True,
    help="csv: ID,Similar, or the images of a concept; json: an object a line; trec: a run.",
)
@click.option("--output", type=file_path(dir_okay=False), help="Write there instead of stdout.")
@click.option("--out", "page", type=file_path(dir_okay=False), help="Also a page with pictures.")
@click.option("--images", "cases", help="The indexed images, if the index keeps no pictures.")
@which_options
@asking_options
def search_command(query: str | None, place: IndexLocation, **options: Any) -> int:
    """Find cases of the index by an image, a concept or words.

    QUERY is taken as images if it is a path, a pattern or a name that ends like an image's; else as
    a CUI, or as the name of a concept or a part of it. A concept gives its exemplars, the images
    that lack it although their neighbours have it, and those that have it although their neighbours
    do not: likely label errors.

    \b
    annotator search scan.png
    annotator search "pleural effusion" --out effusion.html
    annotator search images/ --split split.csv --only test --k 100 --format trec > similar.txt
    annotator search --text "chest radiograph with a pacemaker"
    """
    kind, wanted = _meant(query, options)
    if options["without"] and kind not in ("image", "id"):
        raise click.UsageError("--without belongs to a search by images.")
    if options["groups"] and (options["without"] != "group" or kind != "image"):
        raise click.UsageError("--groups belongs to a search by images --without group.")
    if kind != "image" and (options["ids_file"] or options["split"] or options["only"]):
        raise click.UsageError("--ids, --split and --only belong to a search by images.")
    if options["format_"] == "trec" and kind == "concept":
        raise click.UsageError("--format trec is for rankings; a concept has table, csv and json.")
    stored = place.open(whole=options["verify"], device=options["device"])
    if kind == "concept":
        return _search_concept(wanted, guessed=query is not None, stored=stored, options=options)

    from annotator.explore.search_report import render_rankings

    refs: list[ImageRef] = []
    if kind == "image":
        rankings, refs = _by_images(wanted, place, stored, options)
    elif kind == "id":
        from annotator.explore.similar import rank_ids

        rankings = rank_ids(stored, [wanted], options["k"], without=options["without"] or "itself")
    else:
        rankings = _by_text(wanted, stored, options)
    write_result(render_rankings(rankings, options["format_"], stored.names), options["output"])
    if options["page"] is not None:
        from annotator.explore.search_page import rankings_page

        cases = _pictures(stored, options["cases"])
        queries = _pictures_of(refs) if kind == "image" else cases if kind == "id" else None
        write_result(rankings_page(rankings, stored.names, cases, queries), options["page"])
    failed = [(r.query, r.error) for r in rankings if r.error is not None]
    say_failed(failed)
    _say_next(rankings, options)
    return EXIT_PARTIAL if failed else EXIT_OK


def _meant(query: str | None, options: Mapping[str, Any]) -> tuple[str, str]:
    """What to search by, and for what."""
    kinds = [kind for kind in ("image", "id", "concept", "text") if options[kind]]
    if len(kinds) + (query is not None) != 1:
        raise click.UsageError("Give QUERY, or one of --image, --id, --concept and --text.")
    if query is None:
        return kinds[0], options[kinds[0]]
    from annotator.images.ref import IMAGE_EXTENSIONS

    path = Path(query).expanduser()
    is_image = (
        path.suffix.lower() in IMAGE_EXTENSIONS | {".parquet"}
        or any(sign in query for sign in ("*", "?", "://"))
        or path.exists()
    )
    return "image" if is_image else "concept", query


def _search_concept(
    wanted: str, *, guessed: bool, stored: Index, options: Mapping[str, Any]
) -> int:
    from annotator.explore.concept import of_concept
    from annotator.explore.search_report import render_concept, shown
    from annotator.indexing.metadata import IndexMetadata
    from annotator.tables.concept_names import NoSuchConcept, find_concept

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
    found = of_concept(stored, IndexMetadata.of(stored).voting, cui, k=options["k"])
    write_result(render_concept(found, options["format_"], stored.names), options["output"])
    if options["page"] is not None:
        from annotator.explore.search_page import concept_page

        pictures = _pictures(stored, options["cases"])
        write_result(concept_page(found, stored.names, pictures), options["page"])
    doubtful = len(found.missing) + len(found.wrong)
    if options["page"] is not None:
        say(f"Next: open {options['page']} in a browser.")
    elif doubtful:
        say(
            f"Next: look at the images of {shown(cui, stored.names)} (--out concept.html), and put "
            "wrong labels right with annotator add IMAGES CONCEPTS --replace."
        )
    else:
        say("Next: --out concept.html shows the images; --k lists more.")
    return EXIT_OK


def _by_images(
    wanted: str, place: IndexLocation, stored: Index, options: Mapping[str, Any]
) -> tuple[list[Ranking], list[ImageRef]]:
    from annotator.tables.formats import read_column

    refs = given_images(wanted, options)
    groups = read_column(options["groups"]) if options["groups"] else None

    from annotator.explore.similar import rank_images
    from annotator.pipeline import Annotator

    embedder = given_embedder(stored, options)
    rankings: list[Ranking] = []
    with given_cache(place, embedder, options) as cache:
        for ranking in rank_images(
            Annotator(stored, embedder),
            refs,
            options["k"],
            without=options["without"] or "nothing",
            groups=groups,
            cache=cache,
            batch_size=options["batch_size"],
            workers=options["workers"],
        ):
            if ranking.error is not None and options["on_error"] == "fail":
                raise AnnotatorError(
                    f"{ranking.query}: {ranking.error}.",
                    "Put it right, or pass such images over with --on-error skip.",
                )
            rankings.append(ranking)
    return rankings, refs


def _by_text(wanted: str, stored: Index, options: Mapping[str, Any]) -> list[Ranking]:
    from annotator.explore.text_search import TextSearch
    from annotator.knn.neighbors import Ranking, cases_of

    search = TextSearch(stored, options["embedder"])
    (cases,) = cases_of(search.find([wanted], options["k"]))
    return [Ranking(wanted, cases)]


def _pictures(stored: Index, images: str | None) -> Callable[[str], bytes]:
    """Small pictures of the index's images, by id: its own, or made from their files."""
    from annotator.images.sources import find_images

    if images is not None:
        return _pictures_of(find_images(images, on_duplicate="first").images)
    if not stored.has_thumbnails:
        say(
            "The index keeps no small pictures: give --images, or build it with --thumbnails "
            "(nothing is embedded again)."
        )
    return lambda image_id: stored.thumbnail_of(image_id) or b""


def _pictures_of(refs: Sequence[ImageRef]) -> Callable[[str], bytes]:
    from annotator.images.thumbnails import make_thumbnails

    by_id = {ref.id: ref for ref in refs}

    def picture(image_id: str) -> bytes:
        if image_id not in by_id:
            return b""
        with contextlib.closing(make_thumbnails([by_id[image_id]], workers=1)) as made:
            return next(made)

    return picture


def _say_next(rankings: Sequence[Ranking], options: Mapping[str, Any]) -> None:
    if options["page"] is not None:
        say(f"Next: open {options['page']} in a browser.")
    elif options["format_"] in ("csv", "trec"):
        path = options["output"] or "similar." + ("csv" if options["format_"] == "csv" else "txt")
        say(f"Next: annotator evaluate {path} CONCEPTS --ranking")
    elif all(not ranking.cases for ranking in rankings):
        say("Next: --without nothing lists the image itself, too.")
    else:
        say("Next: --out similar.html shows the cases' pictures; --format json has all of each.")
