"""Search by words, with a real text tower: that of a small random open_clip model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from annotator.errors import AnnotatorError
from annotator.explore.neighbours import cases_of
from annotator.explore.text_search import TextSearch
from annotator.knn.pullback import towards
from index import StoredIndex, open_index

if TYPE_CHECKING:
    from annotator.collection import Collection
    from annotator.encoders.embedder import Embedder
    from annotator.indexing.build import Adaptation

pytestmark = pytest.mark.slow

Build = Callable[[str], StoredIndex]
TEXTS = ["a chest x-ray", "stripes", "an x-ray of the chest with a very long text" * 9]


@pytest.fixture
def built(tmp_path: Path, patterns: Collection, clip_embedder: Embedder) -> Build:
    from annotator.indexing.build import build_index

    def build(adaptation: Adaptation) -> StoredIndex:
        build_index(
            patterns, tmp_path / adaptation, clip_embedder, adaptation=adaptation, tuning=False,
            use_cache=False,
        )  # fmt: skip
        return open_index(tmp_path / adaptation)

    return build  # type: ignore[return-value]


def encoded(texts: list[str], folder: Path) -> np.ndarray:
    """What open_clip itself gives, all of the model loaded afresh."""
    import open_clip
    import torch

    model = open_clip.create_model(f"local-dir:{folder}", require_pretrained=True).eval()
    with torch.inference_mode():
        tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(texts)
        return np.asarray(model.encode_text(tokens, normalize=True).numpy())


def test_without_a_projection_it_is_the_cosine(built: Build, clip_embedder: Embedder) -> None:
    stored = built("none")
    found = TextSearch(stored).find(TEXTS, 7)
    vectors = stored.vectors(np.arange(len(stored)))
    folder = Path(clip_embedder.name.removeprefix("local-dir:"))
    expected = encoded(TEXTS, folder) @ vectors.T
    order = np.argsort(-expected, axis=1)[:, :7]
    assert found.neighbors.similarities == pytest.approx(
        np.take_along_axis(expected, order, axis=1), abs=1e-5
    )
    assert len({case.image_id for case in cases_of(found)[0]}) == 7


@pytest.mark.parametrize("adaptation", ["looks", "auto"])
def test_through_a_projection_the_direction_is_searched_for(
    built: Build, clip_embedder: Embedder, adaptation: str
) -> None:
    from annotator.knn.projection import Projection

    stored = built(adaptation)
    projection = Projection.from_arrays(stored.arrays)
    assert projection is not None
    folder = Path(clip_embedder.name.removeprefix("local-dir:"))
    texts = encoded(TEXTS, folder).astype(np.float32)
    found = TextSearch(stored).find(TEXTS, len(stored))
    expected = stored.find(towards(projection, texts), len(stored))
    assert found.neighbors.similarities == pytest.approx(expected.neighbors.similarities, abs=1e-4)


def test_another_encoder_is_refused(
    built: Build, clip_embedder: Embedder, tuned_index: Path, tmp_path: Path
) -> None:
    with pytest.raises(AnnotatorError, match="encoder tiny has no text tower") as error:
        TextSearch(open_index(tuned_index))
    assert "--embedder hf-hub:" in error.value.hint
    stored = built("none")
    with pytest.raises(AnnotatorError, match="has no text tower"):
        TextSearch(stored, f"{clip_embedder.name}+efficientnet-lite0")
    with pytest.raises(AnnotatorError, match="could not be loaded"):
        TextSearch(stored, f"local-dir:{tmp_path / 'absent'}")


def test_other_weights_are_refused(built: Build, clip_embedder: Embedder, tmp_path: Path) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    stored = built("none")
    folder = Path(clip_embedder.name.removeprefix("local-dir:"))
    other = shutil.copytree(folder, tmp_path / folder.name)
    tensors = load_file(other / "open_clip_model.safetensors")
    save_file({n: t * 1.5 for n, t in tensors.items()}, other / "open_clip_model.safetensors")
    with pytest.raises(AnnotatorError, match="not those that the index was built with"):
        TextSearch(stored, f"local-dir:{other}")
