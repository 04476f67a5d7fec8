"""Small pictures of the points of a map, for its page."""

from __future__ import annotations

import base64
import contextlib
import io
import os
from collections.abc import Iterable

from annotator.images.ref import in_order_of
from annotator.images.sources import find_images
from annotator.images.thumbnails import SIDE, make_thumbnails
from annotator.map.points import Points
from index.progress import track

# Up to so many points, pictures of so many pixels: those of a page stay near 10 MB.
_SIDES = ((1000, SIDE), (2500, 128), (6000, 96))
_LEAST_SIDE = 64
_QUALITY = 70


def default_side(points: int) -> int:
    """How many pixels the longer side of a picture has on a page of so many points."""
    return next((side for most, side in _SIDES if points <= most), _LEAST_SIDE)


def read_pictures(points: Points, side: int, images: str | None = None) -> list[str]:
    """A picture of each point, or none at all where there are none.

    Args:
        points: Of the map.
        side: Pixels that the longer side of a picture has at most.
        images: Where the images lie, for an index that keeps no small pictures.

    Returns:
        JPEGs in base64, "" for a point without; empty if the index keeps none and `images` is None.

    Raises:
        AnnotatorError: There are no images where `images` says.
    """
    kept: Iterable[bytes] | None = points.pictures()
    with contextlib.ExitStack() as stack:
        if kept is None and images is not None:
            refs = in_order_of(points.ids, find_images(images).images)
            made = make_thumbnails(refs, workers=len(os.sched_getaffinity(0)))
            kept = stack.enter_context(contextlib.closing(made))
        if kept is None:
            return []
        return [
            _encoded(picture, side) for picture in track(kept, total=len(points), label="Pictures")
        ]


def _encoded(picture: bytes, side: int) -> str:
    """A JPEG at most `side` pixels wide and high; "" where it cannot be read."""
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
