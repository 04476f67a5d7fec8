"""`annotator show`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from annotator.cli.console import say
from annotator.cli.options import file_path, index_option
from annotator.errors import AnnotatorError

if TYPE_CHECKING:
    from index.protocols import IndexLocation


@click.command("show")
@click.argument("image")
@index_option
@click.option("--images", "cases", help="The indexed images, to show the neighbours' pictures.")
@click.option("--neighbors", type=click.IntRange(1), default=5, show_default=True, help="How many.")
@click.option(
    "--output",
    type=file_path(dir_okay=False),
    default="annotation.png",
    show_default=True,
    help="The picture (.png or .svg).",
)
def show_command(
    image: str, place: IndexLocation, cases: str | None, neighbors: int, output: Path
) -> None:
    """Draw IMAGE with its concepts and the most similar cases, which voted for them.

    \b
    annotator show test/scan.png --images train/ --output why.png
    """
    from annotator.images.sources import find_images

    found = find_images(image).images
    if len(found) != 1:
        raise AnnotatorError(f"{image} holds {len(found)} images.", "Give one image file.")
    cases_by_id = {ref.id: ref for ref in find_images(cases).images} if cases else {}

    from annotator.explain.figure import draw
    from annotator.pipeline import Annotator

    annotator = Annotator.open(place)
    (annotation,) = annotator.annotate(found)
    if annotation.error is not None:
        raise AnnotatorError(f"{image}: {annotation.error}")
    draw(
        annotation,
        found[0],
        cases_by_id,
        annotator.stored.names,
        output,
        neighbors=neighbors,
    )
    say(f"{output}: {annotation.image_id} with {neighbors} of its neighbours.")
