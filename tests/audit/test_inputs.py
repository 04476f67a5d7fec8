from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from annotator.audit.inputs import AuditLabels, AuditLoader, is_index
from annotator.errors import AnnotatorError
from annotator.images.ref import ImageRef


def test_images_that_cannot_be_read_are_left_out(
    textures: list[NDArray[np.uint8]], encode: Callable, as_refs: Callable, pixel_embedder: object
) -> None:
    refs: list[ImageRef] = as_refs([encode(textures[0]), b"broken", encode(textures[1])])
    with AuditLoader(pixel_embedder, workers=1).load(refs) as data:
        assert data.ids == ["i000", "i002"] and list(data.failed) == ["i001"]
        assert data.vectors.shape == (2, 64) and data.thumbnails.shape == (2, 64, 64)
        assert len(set(data.contents)) == 2 and data.thumbnails[1].any()
        part = data.part(slice(1, None))
        assert part.ids == ["i002"] and (part.vectors[0] == data.vectors[1]).all()
        views = part.views(None)
        assert views.load(0).shape == (128, 128) and len(views) == 1
    with (
        pytest.raises(AnnotatorError, match="i001"),
        AuditLoader(pixel_embedder, workers=1, on_error="fail").load(refs),
    ):
        pass


def test_the_cache_gives_the_same_vectors(
    textures: list[NDArray[np.uint8]], encode: Callable, as_refs: Callable, pixel_embedder: object,
    tmp_path: Path,
) -> None:  # fmt: skip
    refs = as_refs([encode(t) for t in textures[:3]])
    loader = AuditLoader(pixel_embedder, cache=tmp_path / "cache.sqlite", workers=1)
    with loader.load(refs) as first, loader.load(refs) as second:
        assert (first.vectors == second.vectors).all()


def test_a_path_is_an_index_if_it_has_a_current_version(tmp_path: Path) -> None:
    assert not is_index(str(tmp_path)) and is_index("milvus://host:1/name")
    (tmp_path / "current").write_text("v000001\n")
    assert is_index(str(tmp_path))


def test_a_concept_is_shown_with_its_name() -> None:
    labels = AuditLabels(names={"C1": "oedema", "C2": ""})
    assert [labels.named(cui) for cui in ("C1", "C2", "C3")] == ["C1 oedema", "C2", "C3"]
