"""Heatmap overlays, and a figure of an image with its neighbours."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from annotator.annotation import Annotation
from annotator.explain.attribution import AttributionMap
from annotator.knn.neighbors import Case
from annotator.render.thumbnails import Thumbnails

# Heatmap colours, safe for colour blindness.
SUPPORTING, OPPOSING = (255, 122, 0), (0, 114, 255)
_OPACITY = 0.72  # of the strongest cell
_CELL = 4  # pixels of an overlay; the browser enlarges it smoothly

_CHOSEN, _OTHER, _DOUBT = "#1b7f4d", "#8a8a8a", "#a35b00"
_MOST_CONCEPTS = 8


def overlay(map_: AttributionMap, size: tuple[int, int] | None = None) -> Image.Image:
    """Render a heatmap as an "RGBA" overlay, relative to its strongest cell.

    Args:
        map_: Attribution map of one concept.
        size: Width and height in pixels; None for a few pixels per cell.
    """
    grid = map_.grid / max(float(np.abs(map_.grid).max()), 1e-12)
    rows, columns = grid.shape
    size = size or (columns * _CELL, rows * _CELL)
    smooth = Image.fromarray(grid.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
    values: NDArray[np.float32] = np.clip(np.asarray(smooth), -1, 1)
    pixels = np.empty((*values.shape, 4), np.uint8)
    pixels[..., :3] = np.where((values > 0)[..., None], SUPPORTING, OPPOSING)
    # 16 levels are visually smooth and reduce the file to a third.
    strength = np.round(np.abs(values) * 16) / 16
    pixels[..., 3] = np.round(255 * _OPACITY * strength)
    return Image.fromarray(pixels, "RGBA")


def blend(picture: Image.Image, map_: AttributionMap) -> Image.Image:
    """Blend a heatmap over a picture; returns "RGB"."""
    under = picture.convert("RGBA")
    return Image.alpha_composite(under, overlay(map_, picture.size)).convert("RGB")


def to_png(picture: Image.Image) -> bytes:
    """Encode a picture as PNG."""
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return file.getvalue()


def to_jpeg(picture: Image.Image) -> bytes:
    """Encode an "L" or "RGB" picture as JPEG."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=85, optimize=True)
    return file.getvalue()


def draw(
    annotation: Annotation,
    image: Image.Image,
    thumbnails: Thumbnails,
    names: Mapping[str, str],
    *,
    neighbors: int,
    file_format: Literal["png", "svg"] = "png",
) -> bytes:
    """Draw an image with its concepts, their scores and the voting neighbours.

    Args:
        annotation: Annotation of `image`.
        image: Annotated image.
        thumbnails: Thumbnails of the index; a neighbour without one is drawn blank.
        names: Name by CUI, where known.
        neighbors: Maximum number of neighbours shown.
        file_format: Format of the returned file.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    shown = annotation.neighbors[:neighbors]
    figure = Figure(figsize=(2.3 * (len(shown) + 2.1), 4.4), layout="constrained")
    axes = figure.subplots(
        2, len(shown) + 2, height_ratios=(1, 0.62), width_ratios=(1.35, 0.75, *[1] * len(shown))
    )
    for panel in axes.flat:
        panel.axis("off")
    _draw_picture(axes[0, 0], image, f"{annotation.image_id}\nto be annotated")
    _draw_scores(axes[0, 1], annotation)
    concepts = [
        (
            f"{cui}  {_short(names.get(cui, ''))}"
            + ("" if probability is None else f" ({probability:.0%} probable)"),
            _CHOSEN,
        )
        for cui, _, _, probability in annotation.each
    ]
    for cui, rival in annotation.rivals.items():
        line = f"{_short(names.get(cui, '')) or cui} or {_short(names.get(rival, '')) or rival}?"
        concepts.append((line, _DOUBT))
    _write_lines(axes[1, 0], concepts)
    axes[1, 1].text(0, 1, f"expected F1\n{annotation.expected_f1:.2f}", va="top", fontsize=9)
    for column, neighbor in enumerate(shown, 2):
        jpeg = thumbnails(neighbor.image_id)
        picture = Image.open(io.BytesIO(jpeg), formats=["JPEG"]) if jpeg else None
        title = f"{neighbor.image_id}\nsimilarity {neighbor.similarity:.3f}"
        _draw_picture(axes[0, column], picture, title)
        _write_lines(axes[1, column], _neighbor_lines(neighbor, annotation.cuis, names))
    file = io.BytesIO()
    with rc_context({"svg.hashsalt": "annotator"}):  # same input, same bytes
        metadata = {"Date": None} if file_format == "svg" else None
        figure.savefig(file, format=file_format, dpi=110, metadata=metadata)
    return file.getvalue()


def _neighbor_lines(
    neighbor: Case, chosen: Sequence[str], names: Mapping[str, str]
) -> list[tuple[str, str]]:
    head = [(f"weight {neighbor.weight:.1%}", "black")]
    labels = [
        (_short(names.get(cui, "")) or cui, _CHOSEN if cui in chosen else _OTHER)
        for cui in neighbor.cuis
    ]
    filled_in = [
        (f"{_short(names.get(cui, '')) or cui} (filled in)", _OTHER) for cui in neighbor.inferred
    ]
    return head + labels + filled_in


def _draw_picture(panel: Any, picture: Image.Image | None, title: str) -> None:
    panel.set_title(title, fontsize=8, parse_math=False)
    if picture is None:
        panel.text(0.5, 0.5, "image not given", ha="center", va="center", color=_OTHER, fontsize=8)
        return
    panel.imshow(picture, cmap="gray" if picture.mode == "L" else None)


def _draw_scores(panel: Any, annotation: Annotation) -> None:
    """Bars of the vote shares of the chosen concepts, then of those considered."""
    panel.axis("on")
    shown = [*annotation.cuis, *annotation.considered][:_MOST_CONCEPTS]
    colours = [_CHOSEN if cui in annotation.cuis else _OTHER for cui in shown]
    panel.barh(range(len(shown)), [annotation.share(cui) for cui in shown], color=colours)
    panel.set_yticks(range(len(shown)), shown, fontsize=7, parse_math=False)
    panel.invert_yaxis()
    panel.set_xlim(0, 1)
    panel.set_title("share of the votes", fontsize=8)
    panel.tick_params(axis="x", labelsize=7)
    panel.spines[["top", "right"]].set_visible(False)


def _write_lines(panel: Any, lines: Sequence[tuple[str, str]]) -> None:
    for i, (line, colour) in enumerate(lines[: _MOST_CONCEPTS + 1]):
        panel.text(
            0, 1 - i / (_MOST_CONCEPTS + 1), line, color=colour, fontsize=8, va="top",
            transform=panel.transAxes, parse_math=False,
        )  # fmt: skip


def _short(name: str) -> str:
    return textwrap.shorten(name, 26, placeholder="…") if name else ""
