"""Interactive HTML page of a map."""

from __future__ import annotations

import base64
import contextlib
import io
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from annotator.images.ref import in_order_of
from annotator.images.sources import find_images
from annotator.images.thumbnails import SIDE, make_thumbnails
from annotator.map.colouring import EDGE, MARKS, REST, REST_MARK, Mark
from annotator.map.make import Map
from annotator.map.points import Points
from annotator.render.html import render_page
from index.cores import usable_cores
from index.progress import track

# Maximum number of points and thumbnail size in pixels, for pages of about 10 MB.
_SIDES = ((1000, SIDE), (2500, 128), (6000, 96))
_LEAST_SIDE = 64
_QUALITY = 70


def map_page(drawn: Map, pictures: Sequence[str] = ()) -> str:
    """Render a map as HTML.

    Args:
        drawn: The map.
        pictures: Thumbnail of each point, from `read_pictures`; empty for a page without.
    """
    return render_page("map.html", drawn=drawn, data=_data(drawn, pictures))


def default_side(points: int) -> int:
    """Default thumbnail size of a page: the longer side in pixels."""
    return next((side for most, side in _SIDES if points <= most), _LEAST_SIDE)


def read_pictures(points: Points, side: int, images: str | None = None) -> list[str]:
    """Read the thumbnails of points.

    Args:
        points: Points of the map.
        side: Longer side in pixels.
        images: Indexed images, for an index without thumbnails.

    Returns:
        JPEGs in base64, "" for a point without; empty if the index has none and `images` is None.

    Raises:
        AnnotatorError: There are no images at `images`.
    """
    kept: Iterable[bytes] | None = points.pictures()
    with contextlib.ExitStack() as stack:
        if kept is None and images is not None:
            refs = in_order_of(points.ids, find_images(images).images)
            made = make_thumbnails(refs, workers=usable_cores())
            kept = stack.enter_context(contextlib.closing(made))
        if kept is None:
            return []
        return [
            _encoded(picture, side) for picture in track(kept, total=len(points), label="Pictures")
        ]


def _data(drawn: Map, pictures: Sequence[str]) -> dict[str, Any]:
    """Data for the script of the page, as plain JSON types."""
    points, colouring = drawn.points, drawn.colouring
    positions = drawn.layout.positions
    span = float(np.ptp(positions, axis=0).max()) or 1.0
    places = ((positions - positions.min(axis=0)) / span).round(5)
    labels = points.labels
    legend = [
        {"label": category.label or category.cui, "cui": category.cui if category.label else "",
         "points": category.points, "held": category.held, **_mark(mark)}
        for category, mark in zip(colouring.categories, MARKS, strict=False)
    ]  # fmt: skip
    rest = int(np.sum(colouring.of == REST))
    legend.append(
        {"label": colouring.rest, "cui": "", "points": rest, "held": rest, **_mark(REST_MARK)}
    )
    return {
        "x": places[:, 0].tolist(),
        "y": places[:, 1].tolist(),
        "category": np.where(colouring.of == REST, len(legend) - 1, colouring.of).tolist(),
        "legend": legend,
        "edge": EDGE,
        "by": colouring.by,
        "ids": points.ids,
        "concepts": [[cui, points.name(cui)] for cui in labels.cuis],
        "held": [
            labels.indices[start:end].tolist()
            for start, end in zip(labels.indptr[:-1], labels.indptr[1:], strict=True)
        ],
        "captions": points.texts("captions") or [],
        "groups": points.texts("groups") or [],
        "pictures": list(pictures),
    }


def _mark(mark: Mark) -> dict[str, Any]:
    return {"colours": [mark.colour, mark.dark], "form": mark.form}


def _encoded(picture: bytes, side: int) -> str:
    """JPEG in base64, at most `side` pixels wide and high; "" if it cannot be read."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(picture), formats=["JPEG"]) as image:
            if max(image.size) > side:
                image.thumbnail((side, side), Image.Resampling.BICUBIC)
                file = io.BytesIO()
                image.save(file, "JPEG", quality=_QUALITY, optimize=True)
                picture = file.getvalue()
    except OSError:
        return ""
    return base64.b64encode(picture).decode("ascii")
