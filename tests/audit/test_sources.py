from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from annotator.audit.candidates import Views
from annotator.audit.duplicates import looking_at, same_pixels
from annotator.audit.glances import make_glances
from annotator.audit.sources import Source, find_sources
from annotator.images.ref import ImageRef

Drawn = NDArray[np.uint8]


def views_of(refs: list[ImageRef]) -> Views:
    glances = make_glances(refs, workers=1)
    looks = glances.reshape(len(refs), -1).astype(np.float32)
    looks -= looks.mean(axis=1, keepdims=True)
    return Views(looks / np.linalg.norm(looks, axis=1, keepdims=True), glances)


def traced(images: list[ImageRef], collection: list[ImageRef], k: int = 5) -> list[list[Source]]:
    return find_sources(
        views_of(images),
        views_of(collection),
        (looking_at(images), looking_at(collection)),
        partial(same_pixels, images, collection),
        least=0.9,
        k=k,
    )


def test_copies_close_ones_and_others(
    textures: list[Drawn],
    changed: Callable[[Drawn, str], bytes],
    encode: Callable,
    as_refs: Callable,
) -> None:
    collection = as_refs([encode(t) for t in textures[:20]])
    # Half an image of the collection, half a new one.
    mixed = (0.55 * textures[7] + 0.45 * textures[22]).astype(np.uint8)
    images = as_refs(
        [changed(textures[3], "mirrored"), encode(textures[5], "BMP"), encode(mixed),
         encode(textures[21])]
    )  # fmt: skip
    mirrored, same, close, other = traced(images, collection, k=3)
    assert (mirrored[0].row, mirrored[0].flag, mirrored[0].how) == (3, "copy", "mirrored")
    assert (same[0].row, same[0].flag, same[0].how) == (5, "copy", "same pixels")
    assert mirrored[0].score > 0.9 and same[0].score > 0.999
    assert close[0].row == 7 and close[0].flag == "close" and close[0].score == 1.0
    assert {s.flag for s in other} == {"source"} and len(other) == 3
    assert other[0].similarity >= other[1].similarity >= other[2].similarity


def test_a_collection_of_one_image(textures: list[Drawn], encode: Callable, as_refs: Callable) -> None:  # fmt: skip # noqa: E501
    refs = as_refs([encode(textures[0])])
    ((source,),) = traced(refs, refs)
    assert source.flag == "copy" and source.closeness == 0.0
