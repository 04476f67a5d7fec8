"""`annotator explain`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from annotator.cli.console import EXIT_OK, EXIT_PARTIAL, say, say_failed, write_result
from annotator.cli.options import file_path, index_option
from annotator.errors import AnnotatorError, ImageError
from index.progress import track

if TYPE_CHECKING:
    from index.protocols import IndexLocation


@click.command("explain")
@click.argument("images")
@index_option
@click.option(
    "--out",
    type=file_path(),
    required=True,
    help="The page of one image (.html), or a folder for those of many.",
)
@click.option("--images", "cases", help="The indexed images, where the index keeps no pictures.")
@click.option(
    "--heatmaps", type=file_path(file_okay=False), help="Also a PNG of each heatmap, there."
)
@click.option(
    "--neighbors",
    type=click.IntRange(1),
    default=6,
    show_default=True,
    help="Most neighbours shown for a concept.",
)
@click.option(
    "--method",
    type=click.Choice(["auto", "exact", "patches", "occlusion"]),
    default="auto",
    show_default=True,
    help="How places get their parts: exact for encoders that average over positions; "
    "patches (transformers) and occlusion (any) are approximate.",
)
@click.option("--embedder", metavar="NAME", help="The encoder, if its weights have moved.")
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where the encoder runs; cuda: and the search.",
)
def explain_command(images: str, place: IndexLocation, out: Path, **options: Any) -> int:
    """Say why IMAGES (file, folder, glob, …) get their concepts, on a page for each.

    A page is one file: the image, its concepts, the neighbours that voted for each, and heatmaps of
    where the image is like them. The same figures are in a JSON file beside it.

    \b
    annotator explain scan.png --out report.html
    annotator explain test/ --out reports/ --images train/ --heatmaps heatmaps/
    """
    from annotator.images.sources import find_images

    found = find_images(images).images
    one_page = out.suffix.lower() in (".html", ".htm")
    if one_page and len(found) != 1:
        raise AnnotatorError(
            f"{images} holds {len(found)} images, and {out} is one page.",
            "Give a folder for the pages: --out reports/",
        )
    cases = (
        {ref.id: ref for ref in find_images(options["cases"]).images} if options["cases"] else {}
    )

    from annotator.explain.cases import small_pictures
    from annotator.explain.explain import explain
    from annotator.explain.files import contents, file_name
    from annotator.explain.overlay import blended, jpeg, png
    from annotator.explain.report import page, shown, to_dict
    from annotator.indexing.metadata import IndexMetadata
    from annotator.pipeline import Annotation, Annotator

    stored = place.open(device=options["device"])
    embedder = IndexMetadata.of(stored).make_embedder(
        name=options["embedder"], device=options["device"]
    )
    annotator = Annotator(stored, embedder)
    names = annotator.stored.names
    heatmaps: Path | None = options["heatmaps"]
    for folder in (None if one_page else out, heatmaps):
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
    annotations: list[Annotation] = []
    method = ""
    for ref in track(found, total=len(found), label="Explaining"):
        try:
            explanation = explain(annotator, ref, options["method"])
        except ImageError as error:
            annotations.append(Annotation(ref.id, (), (), 0.0, (), error=error.message))
            continue
        annotations.append(explanation.annotation)
        method = explanation.method
        path = out if one_page else out / f"{file_name(ref.id)}.html"
        pictures = small_pictures(annotator, shown(explanation, options["neighbors"]), cases)
        write_result(
            page(
                explanation,
                names,
                pictures,
                neighbors=options["neighbors"],
                picture=jpeg(explanation.picture),
            ),
            path,
        )
        figures = json.dumps(to_dict(explanation, names), ensure_ascii=False)
        write_result(figures + "\n", path.with_suffix(".json"))
        if heatmaps is not None:
            for concept in explanation.concepts:
                name = f"{file_name(ref.id)}.{file_name(concept.cui)}.png"
                overlay = blended(explanation.picture, concept.contrast)
                write_result(png(overlay), heatmaps / name)
    failed = [(a.image_id, a.error) for a in annotations if a.error is not None]
    if not one_page:
        write_result(contents(annotations, names), out / "index.html")
    say_failed(failed)
    if len(failed) < len(found):
        _say_next(out if one_page else out / "index.html", method, options)
    return EXIT_PARTIAL if failed else EXIT_OK


def _say_next(page: Path, method: str, options: dict[str, Any]) -> None:
    if method != "exact":
        say(f"The heatmaps are approximate ({method}).")
    lacking = "" if options["cases"] else " Pictures of the cases are missing? --images TRAIN/."
    if options["heatmaps"] is None:
        lacking += " --heatmaps DIR writes the overlays as PNG."
    say(f"Next: open {page} in a browser.{lacking}")
