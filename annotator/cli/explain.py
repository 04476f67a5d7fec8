"""`annotator explain`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from annotator.cli.console import EXIT_OK, say, write_result
from annotator.cli.image_report import ImageReport
from annotator.cli.options import FindingOptions, file_path, finding_options, index_option
from annotator.cli.sections import Command, option
from annotator.errors import AnnotatorError, ImageError
from index.progress import track

if TYPE_CHECKING:
    from annotator.annotation import Annotation
    from annotator.images.ref import ImageRef
    from annotator.pipeline import Annotator
    from annotator.render.thumbnails import Thumbnails
    from index.protocols import Device, IndexLocation

Method = Literal["auto", "additive", "patches", "occlusion"]

_PAGES = (".html", ".htm")
_FIGURES: dict[str, Literal["png", "svg"]] = {".png": "png", ".svg": "svg"}
_NEIGHBORS_ON_PAGE = 10
_NEIGHBORS_IN_FIGURE = 5


@click.command(
    "explain", cls=Command, short_help="Explain concepts: heatmaps and the cases that voted."
)
@click.argument("images")
@index_option
@option(
    "Output",
    "--out",
    type=file_path(),
    required=True,
    help="Page (.html) or figure (.png, .svg) of one image, or folder for many pages.",
)
@option(
    "Input",
    "--images",
    "indexed_images",
    help="Indexed images, for pictures of the neighbours if the index has no thumbnails.",
)
@option(
    "Output",
    "--heatmaps",
    type=file_path(file_okay=False),
    help="Folder for the heatmaps as PNG overlays.",
)
@option(
    "Output",
    "--neighbors",
    type=click.IntRange(1),
    help="Maximum number of neighbours shown (default: 10 on a page, 5 in a figure).",
)
@option(
    "Output",
    "--method",
    type=click.Choice(["auto", "additive", "patches", "occlusion"]),
    default="auto",
    help="Attribution method: additive (encoders with average pooling), patches (transformers) or "
    "occlusion (any encoder).",
)
@finding_options
@option("Encoder", "--embedder", metavar="NAME", help="Encoder, if its weights have moved.")
@option(
    "Running",
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    help="Device for the encoder (and search, with cuda).",
)
def explain_command(
    images: str,
    place: IndexLocation,
    out: Path,
    indexed_images: str | None,
    heatmaps: Path | None,
    neighbors: int | None,
    method: Method,
    finding: FindingOptions,
    embedder: str | None,
    device: Device,
) -> int:
    """Explain the concepts of IMAGES (file, folder, glob, …): one page each, or a figure.

    A page is self-contained: the image, its concepts, heatmaps of what tells each concept apart,
    and the neighbours that voted; a JSON file beside it has the same numbers. A figure shows the
    image, its concepts and its nearest neighbours, without heatmaps. An image that the index has
    itself is explained by the other images.

    \b
    annotator explain scan.png --out report.html
    annotator explain scan.png --out why.png
    annotator explain test/ --out reports/ --images train/ --heatmaps heatmaps/
    """
    from annotator.images.sources import find_images

    found = finding.find_images(images)
    refs = [*found.images, *found.unreadable]
    suffix = out.suffix.lower()
    if suffix in (*_PAGES, *_FIGURES) and len(refs) != 1:
        raise AnnotatorError(
            f"{images} has {len(refs)} images, but {out} is for one.",
            "Give a folder for the pages: --out reports/",
        )
    if suffix in _FIGURES and (heatmaps is not None or method != "auto"):
        raise click.UsageError(f"--heatmaps and --method require pages, not {out}.")
    indexed = (
        find_images(indexed_images, on_duplicate="first", id_from=finding.id_from).images
        if indexed_images
        else []
    )

    from annotator.indexing.metadata import IndexMetadata
    from annotator.pipeline import Annotator
    from annotator.render.thumbnails import index_thumbnails

    stored = place.open(device=device)
    # The parts of a picture are torch's: its vector has to be, for their sum to be right.
    encoder = IndexMetadata.of(stored).make_embedder(name=embedder, device=device, engine="torch")
    annotator = Annotator(stored, encoder, exclude_self=True)
    thumbnails = index_thumbnails(stored, indexed)
    if suffix in _FIGURES:
        return _write_figure(annotator, refs[0], thumbnails, out, neighbors or _NEIGHBORS_IN_FIGURE)
    if suffix not in _PAGES:
        out.mkdir(parents=True, exist_ok=True)
    if heatmaps is not None:
        heatmaps.mkdir(parents=True, exist_ok=True)
    annotations, used_method = _write_pages(
        annotator, refs, thumbnails, out, heatmaps, neighbors or _NEIGHBORS_ON_PAGE, method
    )
    report = ImageReport()
    for ref, annotation in zip(refs, annotations, strict=True):
        report.add(ref.where, annotation.error, annotation.notes)
    report.say()
    if used_method is not None:
        if used_method != "additive":
            say(f"The heatmaps are approximate ({used_method}).")
        page = out if suffix in _PAGES else out / "index.html"
        missing = "" if indexed else " --images TRAIN/ adds missing pictures."
        also = "" if heatmaps else " --heatmaps DIR writes the overlays as PNG."
        say(f"Next: open {page} in a browser.{missing}{also}")
    return report.exit_code


def _write_figure(
    annotator: Annotator, ref: ImageRef, thumbnails: Thumbnails, out: Path, neighbors: int
) -> int:
    from annotator.explain.figure import draw
    from annotator.images.decode import decode

    (annotation,) = annotator.stream([ref])
    if annotation.error is not None:
        report = ImageReport({ref.where: annotation.error})
        report.say()
        return report.exit_code
    figure = draw(
        annotation,
        decode(ref.read()).frames[0],
        thumbnails,
        annotator.stored.names,
        neighbors=neighbors,
        file_format=_FIGURES[out.suffix.lower()],
    )
    write_result(figure, out)
    say(f"{out}: {ref.id} with {min(neighbors, len(annotation.neighbors))} of its neighbours.")
    return EXIT_OK


def _write_pages(
    annotator: Annotator,
    refs: Sequence[ImageRef],
    thumbnails: Thumbnails,
    out: Path,
    heatmaps: Path | None,
    neighbors: int,
    method: Method,
) -> tuple[list[Annotation], str | None]:
    """Write a page and a JSON file for each image, and a contents page if `out` is a folder.

    Returns:
        The annotations, and the attribution method (None if no image could be explained).
    """
    from annotator.annotation import Annotation
    from annotator.explain.explain import explain
    from annotator.explain.figure import blend, to_png
    from annotator.explain.report import contents_page, explanation_page, file_name, to_dict

    names = annotator.stored.names
    one_page = out.suffix.lower() in _PAGES
    annotations: list[Annotation] = []
    used_method = None
    for ref in track(refs, total=len(refs), label="Explaining"):
        try:
            explanation = explain(annotator, ref, method)
        except ImageError as error:
            annotations.append(Annotation(ref.id, (), (), 0.0, (), error=error))
            continue
        annotations.append(explanation.annotation)
        used_method = explanation.method
        path = out if one_page else out / f"{file_name(ref.id)}.html"
        write_result(explanation_page(explanation, names, thumbnails, neighbors=neighbors), path)
        figures = json.dumps(to_dict(explanation, names), ensure_ascii=False)
        write_result(figures + "\n", path.with_suffix(".json"))
        if heatmaps is not None:
            for concept in explanation.concepts:
                if concept.heatmap is not None:
                    name = f"{file_name(ref.id)}.{file_name(concept.cui)}.png"
                    png = to_png(blend(explanation.picture, concept.heatmap))
                    write_result(png, heatmaps / name)
    if not one_page:
        write_result(contents_page(annotations, names), out / "index.html")
    return annotations, used_method
