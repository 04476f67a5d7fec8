from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

from annotator.images.ref import ImageRef
from annotator.render.thumbnails import index_thumbnails, thumbnails_of


def image(id_: str, data: bytes | None = None) -> ImageRef:
    file = io.BytesIO()
    Image.fromarray(np.full((300, 200), 90, np.uint8)).save(file, "PNG")
    content = file.getvalue() if data is None else data
    return ImageRef(id_, f"{id_}.png", lambda: content)


class Index:
    """Keeps the thumbnail of one image."""

    def thumbnail_of(self, image_id: str) -> bytes | None:
        return b"kept" if image_id == "a" else None


def test_thumbnails_of_files() -> None:
    thumbnails = thumbnails_of([image("a"), image("bad", b"no picture")])
    with Image.open(io.BytesIO(thumbnails("a"))) as made:
        assert made.format == "JPEG" and made.size == (128, 192)
    assert thumbnails("bad") == thumbnails("unknown") == b""


def test_the_index_s_own_come_first() -> None:
    stored: Any = Index()
    thumbnails = index_thumbnails(stored, [image("a"), image("b")])
    assert thumbnails("a") == b"kept"
    assert thumbnails("b").startswith(b"\xff\xd8") and thumbnails("c") == b""
    assert index_thumbnails(stored)("b") == b""
