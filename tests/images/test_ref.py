"""References to images by id."""

from __future__ import annotations

import pytest

from annotator.errors import ImageError
from annotator.images.ref import ImageRef, in_order_of


def test_images_in_the_order_of_ids() -> None:
    images = [ImageRef(id_, f"{id_}.png", id_.encode) for id_ in "abc"]
    refs = in_order_of(["c", "missing", "a", "c"], images)
    assert [ref.id for ref in refs] == ["c", "missing", "a", "c"]
    assert refs[0].read() == b"c"
    with pytest.raises(ImageError, match="no image has this id"):
        refs[1].read()
