"""A picture of one annotation: the image, its concepts, and the cases that voted for them."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from annotator.errors import ImageError
from annotator.images.decode import decode
from annotator.images.ref import ImageRef
from annotator.knn.neighbors import Case
from annotator.pipeline import Annotation

if TYPE_CHECKING:
    from PIL import Image

_CHOSEN, _OTHER = "#1b7f4d", "#8a8a8a"
_MOST_CONCEPTS = 8


def draw(
    annotation: Annotation,
    image: ImageRef,
    cases: Mapping[str, ImageRef],
    names: Mapping[str, str],
    path: Path,
    *,
    neighbors: int = 5,
) -> None:
    """Draw an annotation into a .png or .svg file.

    Args:
        annotation: Of `image`.
        image: The image that was annotated.
        cases: Images of the index by id; a neighbour that is not among them is drawn as a blank.
        names: Names of CUIs.
        path: Where the picture goes.
        neighbors: How many of the voting neighbours are shown.

    Raises:
        ImageError: `image` cannot be decoded.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = annotation.neighbors[:neighbors]
    figure = Figure(figsize=(2.3 * (len(shown) + 2.1), 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(
        2, len(shown) + 2, height_ratios=(1, 0.62), width_ratios=(1.35, 0.75, *[1] * len(shown))
    )
    for panel in axes.flat:
        panel.axis("off")
    _picture(axes[0, 0], decode(image.read())[0], f"{annotation.image_id}\nto be annotated")
    _scores(axes[0, 1], annotation)
    _text(
        axes[1, 0], [(f"{cui}  {_short(names.get(cui, ''))}", _CHOSEN) for cui in annotation.cuis]
    )
    axes[1, 1].text(0, 1, f"expected F1\n{annotation.expected_f1:.2f}", va="top", fontsize=9)
    for column, neighbor in enumerate(shown, 2):
        title = f"{neighbor.image_id}\nsimilarity {neighbor.similarity:.3f}"
        _picture(axes[0, column], _decoded(cases.get(neighbor.image_id)), title)
        _text(axes[1, column], _concepts(neighbor, annotation.cuis, names))
    figure.savefig(path, dpi=110, metadata={"Date": None} if path.suffix == ".svg" else None)


def _concepts(
    neighbor: Case, chosen: Sequence[str], names: Mapping[str, str]
) -> list[tuple[str, str]]:
    head = [(f"weight {neighbor.weight:.1%}", "black")]
    return head + [
        (_short(names.get(cui, "")) or cui, _CHOSEN if cui in chosen else _OTHER)
        for cui in neighbor.cuis
    ]


def _picture(panel: Any, picture: Image.Image | None, title: str) -> None:
    panel.set_title(title, fontsize=8)
    if picture is None:
        panel.text(0.5, 0.5, "image not given", ha="center", va="center", color=_OTHER, fontsize=8)
        return
    panel.imshow(picture, cmap="gray" if picture.mode == "L" else None)


def _scores(panel: Any, annotation: Annotation) -> None:
    """The share of the votes of each chosen concept, as bars."""
    panel.axis("on")
    shown = annotation.scores[:_MOST_CONCEPTS]
    panel.barh(range(len(shown)), shown, color=_CHOSEN)
    panel.set_yticks(range(len(shown)), annotation.cuis[:_MOST_CONCEPTS], fontsize=7)
    panel.invert_yaxis()
    panel.set_xlim(0, 1)
    panel.set_title("share of the votes", fontsize=8)
    panel.tick_params(axis="x", labelsize=7)
    panel.spines[["top", "right"]].set_visible(False)


def _text(panel: Any, lines: Sequence[tuple[str, str]]) -> None:
    for i, (line, colour) in enumerate(lines[: _MOST_CONCEPTS + 1]):
        panel.text(
            0, 1 - i / (_MOST_CONCEPTS + 1), line, color=colour, fontsize=8, va="top",
            transform=panel.transAxes,
        )  # fmt: skip


def _short(name: str) -> str:
    return textwrap.shorten(name, 26, placeholder="…") if name else ""


def _decoded(ref: ImageRef | None) -> Image.Image | None:
    if ref is None:
        return None
    try:
        return decode(ref.read())[0]
    except ImageError:
        return None
