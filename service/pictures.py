"""Pictures for people: one frame of an image file, in a window, as PNG or JPEG."""

from __future__ import annotations

import io
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from service.decoding.processes import DecodingTask
from service.memory import Claim
from service.problems import Problem

if TYPE_CHECKING:
    from service.schemas import PictureQuery


class Rendered(NamedTuple):
    """A picture as it is sent.

    Attributes:
        data: The file.
        status: Of the answer.
        headers: What it shows of which values.
        media_type: Of the file.
    """

    data: bytes
    status: int
    headers: dict[str, str]
    media_type: str


def rendered(
    data: bytes, query: PictureQuery, max_pixels: int, claim: Claim, task: DecodingTask
) -> Rendered:
    """Decode and render an image; blocks.

    Args:
        data: The image file.
        query: What is to be seen of it.
        max_pixels: Limit on a frame.
        claim: Of the memory that it takes.
        task: Decodes it in a process, if that is needed.

    Raises:
        ImageError: It cannot be used.
        Problem: 422, it has no such frame.
    """
    from annotator.images.decode import show
    from annotator.images.pixels import Window

    window = None
    if query.center is not None and query.width is not None:
        window = Window(query.center, query.width)
    options: dict[str, Any] = {
        "frame": query.frame,
        "window": window,
        "side": query.side,
        "max_pixels": max_pixels,
    }
    try:
        shown = show(data, **options, claim=claim.grow, apart=partial(task.show, data, **options))
    except IndexError as error:
        raise Problem(
            422, "invalid_parameter", f"frame: {error}.", "Frames are counted from 0."
        ) from None
    file = io.BytesIO()
    if query.format == "png":
        shown.picture.save(file, "PNG", compress_level=3)
    else:
        shown.picture.save(file, "JPEG", quality=90)
    low, high, used = shown.levels
    headers = {
        "X-Annotator-Frame": str(shown.frame),
        "X-Annotator-Frames": str(shown.n_frames),
        "X-Annotator-Levels": f"{low:g},{high:g}",
        "X-Annotator-Window": f"{used.center:g},{used.width:g}",
    }
    return Rendered(file.getvalue(), 200, headers, f"image/{query.format}")
