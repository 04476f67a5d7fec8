"""Search by words: what is searched for, and a real text tower, of a random open_clip model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray

from annotator.errors import AnnotatorError
from annotator.explore.text_search import TextSearch, project_directions
from annotator.knn.fit import Fitter
from annotator.knn.neighbors import cases_of
from annotator.knn.projection import Projection
from index import LabelTable, StoredIndex, open_index

if TYPE_CHECKING:
    from annotator.collection import Collection
    from annotator.encoders.embedder import Embedder
    from annotator.indexing.build import Adaptation

Build = Callable[[str], StoredIndex]
DIM = 12


def unit_rows(seed: int, n: int, dim: int = DIM) -> NDArray[np.float32]:
    vectors = np.random.default_rng(seed).normal(size=(n, dim))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


@pytest.mark.parametrize("supervised", [0, 4])
def test_nothing_but_lengths_and_a_constant_is_lost(supervised: int) -> None:
    rng = np.random.default_rng(0)
    mean, scale = rng.normal(size=DIM) / 10, rng.random(DIM) + 0.5
    matrix, centre = rng.normal(size=(DIM, DIM + supervised)), rng.normal(size=DIM) / 10
    arrays = [np.asarray(a, np.float32) for a in (mean, scale, matrix, centre @ matrix)]
    projection = Projection(*arrays, unsupervised=DIM)
    images, directions = unit_rows(1, 30), unit_rows(2, 5)
    seen = project_directions(projection, directions)
    assert seen.shape == (5, DIM + supervised) and seen.dtype == np.float32
    assert not seen[:, DIM:].any() and np.linalg.norm(seen, axis=1) == pytest.approx(1)
    inverse = np.linalg.inv(matrix[:, :DIM])
    for image, found in zip(images, projection.apply(images) @ seen.T, strict=True):
        z = (image - mean) * scale
        length = np.linalg.norm(z)
        components = (z / length - centre) @ matrix[:, :DIM]
        for direction, similarity in zip(directions.astype(float), found, strict=True):
            pulled = inverse @ (direction / scale)
            added = (direction @ image - direction @ mean) / length - direction / scale @ centre
            expected = added / np.linalg.norm(pulled) / np.linalg.norm(components)
            assert similarity == pytest.approx(expected / np.sqrt(2 if supervised else 1), abs=1e-4)


def test_numbers_that_do_not_vary_take_no_part() -> None:
    scale = np.ones(DIM, np.float32)
    scale[3] = 0
    matrix, zeros = np.eye(DIM, dtype=np.float32), np.zeros(DIM, np.float32)
    projection = Projection(zeros, scale, matrix, zeros, unsupervised=DIM)
    seen = project_directions(projection, np.eye(DIM, dtype=np.float32)[[2, 3]])
    assert seen[0].tolist() == np.eye(DIM)[2].tolist()
    assert np.isfinite(seen[1]).all()


def test_what_lies_among_no_images_still_ranks_them() -> None:
    """As texts do: far off in a direction in which images do not differ, and a little apart."""
    rng = np.random.default_rng(3)
    centres, offset = unit_rows(4, 6, 40), unit_rows(5, 1, 40)
    centres[:, 30:], offset[:, :30] = 0, 0
    kinds = rng.integers(0, 6, 300)
    images = centres[kinds] + rng.normal(0, 0.1, (300, 40)).astype(np.float32)
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    labels = LabelTable.from_sets([[f"C{kind}"] for kind in kinds])
    projection = Fitter(images, labels, [40]).projection(1.0)
    texts = centres - images.mean(axis=0) + 5 * offset
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    held = projection.apply(images)

    def precision(queries: NDArray[np.float32], among: NDArray[np.float32]) -> float:
        nearest = np.argsort(-(queries @ among.T), axis=1)[:, :20]
        return float((kinds[nearest] == np.arange(6)[:, None]).mean())

    assert precision(texts, images) > 0.9
    assert precision(project_directions(projection, texts), held) > 0.9


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


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("adaptation", ["looks", "auto"])
def test_through_a_projection_the_direction_is_searched_for(
    built: Build, clip_embedder: Embedder, adaptation: str
) -> None:
    stored = built(adaptation)
    projection = Projection.from_arrays(stored.arrays)
    assert projection is not None
    folder = Path(clip_embedder.name.removeprefix("local-dir:"))
    texts = encoded(TEXTS, folder).astype(np.float32)
    found = TextSearch(stored).find(TEXTS, len(stored))
    expected = stored.find(project_directions(projection, texts), len(stored))
    assert found.neighbors.similarities == pytest.approx(expected.neighbors.similarities, abs=1e-4)


@pytest.mark.slow
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


@pytest.mark.slow
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
