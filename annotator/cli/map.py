"""`annotator map`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from annotator.cli.console import say, write_result
from annotator.cli.options import file_path, index_option

if TYPE_CHECKING:
    from annotator.map.make import Map
    from index.protocols import IndexLocation

_KINDS = (".html", ".png")


@click.command("map")
@index_option
@click.option(
    "--output",
    "--out",
    "outputs",
    type=file_path(dir_okay=False),
    multiple=True,
    default=("map.html",),
    show_default=True,
    help="A page (.html) or a picture (.png); may be repeated.",
)
@click.option(
    "--method",
    type=click.Choice(["pca", "umap"]),
    default="pca",
    show_default=True,
    help="From many dimensions to two; umap needs the extra of that name.",
)
@click.option(
    "--color",
    default="concept",
    show_default=True,
    metavar="concept|group|FILE[:COLUMN]",
    help="What the colours mean; FILE is a table with each image's source or the like.",
)
@click.option(
    "--concepts",
    multiple=True,
    metavar="CUI,…",
    help="The concepts that have a colour, by CUI or name (default: eight that tell most).",
)
@click.option(
    "--limit",
    type=click.IntRange(1),
    default=5000,
    show_default=True,
    help="Points at most; of more images a random sample is drawn.",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Of the sample and of umap.",
)
@click.option(
    "--images", help="The indexed images, for the page's pictures where the index keeps none."
)
@click.option(
    "--thumbnail-size",
    "side",
    type=click.IntRange(0, 192),
    help="Pixels of a page's pictures, 0 for none (default: 192, less for over 1,000 points).",
)
def map_command(
    place: IndexLocation,
    outputs: Sequence[Path],
    concepts: Sequence[str],
    limit: int,
    images: str | None,
    side: int | None,
    **options: Any,
) -> None:
    """Draw the images of the index in two dimensions, near each other where they are alike.

    On the page, each point shows its image, concepts and caption.

    \b
    annotator map --output map.html --output map.png
    annotator map --concepts "Pleural effusion,Pneumothorax"
    annotator map --color sources.csv:source --method umap
    """
    other = next((path for path in outputs if path.suffix.lower() not in _KINDS), None)
    if other is not None:
        raise click.UsageError(f"{other}: a map is written to .html or .png.")
    if concepts and options["color"] != "concept":
        raise click.UsageError("--concepts is for --color concept.")

    from annotator.map.make import make_map

    if options["method"] == "umap":
        say("UMAP on one thread, so that a repetition gives the same map: about a minute.")
    drawn = make_map(
        place.open(),
        place.folder.resolve().name,
        concepts=concepts,
        limit=limit,
        **options,
    )
    if len(drawn.points) < drawn.points.total:
        say(f"Drawing {drawn.counted}, chosen at random; --limit draws more.")
    for path in outputs:
        said = f"{path}: {drawn.counted}, by {drawn.colouring.by}"
        if path.suffix.lower() == ".png":
            from annotator.map.make import draw_map

            write_result(draw_map(drawn), path)
            say(f"{said}.")
        else:
            page, shown = _page(drawn, side, images)
            write_result(page, path)
            say(f"{said}, {shown}, {len(page) / 1e6:.1f} MB.")
    _say_next(outputs)


def _page(drawn: Map, side: int | None, images: str | None) -> tuple[bytes, str]:
    """The page, and what pictures it has in words."""
    from annotator.map.page import default_side, map_page, read_pictures

    side = default_side(len(drawn.points)) if side is None else side
    pictures = read_pictures(drawn.points, side, images) if side else []
    if side and not pictures:
        say(
            "The index keeps no small pictures: give --images, or build it with --thumbnails "
            "(nothing is embedded again)."
        )
    shown = f"pictures of {side} pixels" if pictures else "no pictures"
    return map_page(drawn, pictures).encode(), shown


def _say_next(outputs: Sequence[Path]) -> None:
    page = next((path for path in outputs if path.suffix.lower() == ".html"), None)
    if page is None:
        say("Next: `annotator map --output map.html` shows each point's image.")
    else:
        say(
            f"Next: open {page} in a browser; --concepts or --color gives the points other colours."
        )
