"""`annotator map`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from annotator.cli.console import NO_THUMBNAILS, say, write_result
from annotator.cli.options import file_path, index_option
from annotator.cli.sections import Command

if TYPE_CHECKING:
    from annotator.map.make import Map, Method
    from index.protocols import IndexLocation

_KINDS = (".html", ".png")


@click.command(
    "map", cls=Command, short_help="Draw an index in two dimensions, as a page or picture."
)
@index_option
@click.option(
    "--output",
    "--out",
    "outputs",
    type=file_path(dir_okay=False),
    multiple=True,
    default=("map.html",),
    help="Output page (.html) or picture (.png); may be repeated.",
)
@click.option(
    "--method",
    type=click.Choice(["pca", "umap"]),
    default="pca",
    help="Projection to two dimensions; umap needs the extra of that name.",
)
@click.option(
    "--color",
    default="concept",
    metavar="concept|group|FILE[:COLUMN]",
    help="Attribute shown by colour; FILE has a category per image, such as its source.",
)
@click.option(
    "--concepts",
    multiple=True,
    metavar="CUI,…",
    help="Concepts to colour, by CUI or name (default: the eight that best separate the points).",
)
@click.option(
    "--limit",
    type=click.IntRange(1),
    default=5000,
    help="Maximum number of points; larger indexes are sampled at random.",
)
@click.option("--seed", type=click.IntRange(0), default=0, help="Random seed of sampling and umap.")
@click.option("--images", help="Indexed images, for thumbnails missing from the index.")
@click.option(
    "--thumbnail-size",
    "side",
    type=click.IntRange(0, 192),
    help="Thumbnail size in pixels, 0 for none (default: 192, less for over 1,000 points).",
)
def map_command(
    place: IndexLocation,
    outputs: Sequence[Path],
    method: Method,
    color: str,
    concepts: Sequence[str],
    limit: int,
    seed: int,
    images: str | None,
    side: int | None,
) -> None:
    """Draw a two-dimensional map of the index, with similar images close together.

    Each point of the page shows its image, concepts and caption.

    \b
    annotator map --output map.html --output map.png
    annotator map --concepts "Pleural effusion,Pneumothorax"
    annotator map --color sources.csv:source --method umap
    """
    other = next((path for path in outputs if path.suffix.lower() not in _KINDS), None)
    if other is not None:
        raise click.UsageError(f"{other}: the output of map is .html or .png.")
    if concepts and color != "concept":
        raise click.UsageError("--concepts requires --color concept.")

    from annotator.map.make import make_map

    if method == "umap":
        say("UMAP runs on one thread to be reproducible: about a minute.")
    drawn = make_map(
        place.open(),
        place.folder.resolve().name,
        method=method,
        color=color,
        concepts=concepts,
        limit=limit,
        seed=seed,
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
    """The page, and a description of its thumbnails."""
    from annotator.map.page import default_side, map_page, read_pictures

    side = default_side(len(drawn.points)) if side is None else side
    pictures = read_pictures(drawn.points, side, images) if side else []
    if side and not pictures:
        say(NO_THUMBNAILS)
    shown = f"pictures of {side} pixels" if pictures else "no pictures"
    return map_page(drawn, pictures).encode(), shown


def _say_next(outputs: Sequence[Path]) -> None:
    page = next((path for path in outputs if path.suffix.lower() == ".html"), None)
    if page is None:
        say("Next: annotator map --output map.html shows each point's image.")
    else:
        say(
            f"Next: open {page} in a browser; --concepts or --color gives the points other colours."
        )
