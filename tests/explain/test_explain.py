"""Explanations of real annotations: they add up, in every way that a vector may be made."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from annotator.collection import Collection, read_collection
from annotator.encoders.embedder import Encoder
from annotator.encoders.preprocess import Preprocess
from annotator.encoders.registry import make_embedder
from annotator.encoders.torch_embedder import TorchEmbedder
from annotator.encoders.torch_setup import make_torchvision_importable
from annotator.errors import AnnotatorError, ImageError
from annotator.explain.attribution import AttributionMap
from annotator.explain.background import blank_cells
from annotator.explain.cases import find_neighborhood
from annotator.explain.deletion import highest_tenth
from annotator.explain.explain import Explanation, explain
from annotator.explain.occlusion import cover
from annotator.images.decode import decode
from annotator.images.ref import ImageRef
from annotator.images.sources import find_images
from annotator.indexing.build import build_index
from annotator.pipeline import Annotator

if TYPE_CHECKING:
    from annotator.phantoms import SamplePaths

SMALL = "efficientnet-lite0@64"


@pytest.fixture(scope="module")
def annotator(sample_index: Path) -> Annotator:
    return Annotator.open(sample_index)


@pytest.fixture(scope="module")
def images(sample: SamplePaths) -> list[ImageRef]:
    """Not of the index, wide and high ones."""
    indexed = {row.split(",")[0] for row in sample.split.read_text().split() if "train" in row}
    return [ref for ref in find_images(sample.images).images if ref.id not in indexed]


def maps_of(explanation: Explanation) -> list[AttributionMap]:
    """Those of the concepts that can be told apart."""
    maps = [concept.contrast for concept in explanation.concepts if concept.contrast is not None]
    assert maps
    return maps


def check_sums(explanation: Explanation, tolerance: float = 1e-5) -> None:
    """Every map adds up to its total."""
    for map_ in maps_of(explanation):
        parts = float(map_.grid.sum()) + map_.background + map_.elsewhere + map_.constant
        assert parts == pytest.approx(map_.total, abs=tolerance)


def test_parts_sum_to_the_similarities_through_the_projection(
    annotator: Annotator, images: list[ImageRef]
) -> None:
    assert annotator.projection is not None
    for ref in images[:6]:
        explanation = explain(annotator, ref)
        assert explanation.method == "additive"
        check_sums(explanation)
        width, height = explanation.picture.size
        rows, columns = maps_of(explanation)[0].grid.shape
        assert max(rows, columns) == 8 and rows / columns == pytest.approx(height / width, abs=0.15)


@pytest.mark.parametrize("name", [SMALL, f"{SMALL}+efficientnet-lite0@96"])
def test_parts_sum_to_the_similarities_without_a_projection(
    tmp_path: Path, sample: SamplePaths, images: list[ImageRef], name: str
) -> None:
    train = read_collection(sample.images, sample.concepts)
    some = dataclasses.replace(train, images=train.images[:20])
    encoder = make_embedder(name, precision="fp32")
    build_index(some, tmp_path / "index", encoder, adaptation="none", tuning=False)
    annotator = Annotator.open(tmp_path / "index", embedder=encoder)
    assert annotator.projection is None
    for ref in images[:3]:
        explanation = explain(annotator, ref)
        assert explanation.method == "additive"
        check_sums(explanation)
        assert all(map_.constant == 0 for map_ in maps_of(explanation))


def movie(seed: int) -> ImageRef:
    """A TIFF of three pages that differ."""
    rng = np.random.default_rng(seed)
    frames = [
        Image.fromarray(rng.integers(0, 256, (6, 9), np.uint8)).resize((90, 60)) for _ in range(3)
    ]
    file = io.BytesIO()
    frames[0].save(file, "TIFF", save_all=True, append_images=frames[1:])
    return ImageRef(f"movie{seed}", f"movie{seed}.tif", partial(bytes, file.getvalue()))


def test_parts_sum_where_a_vector_is_the_mean_of_frames(tmp_path: Path) -> None:
    refs = [movie(i) for i in range(12)]
    concepts = {ref.id: (f"C{i % 2}",) for i, ref in enumerate(refs)}
    collection = Collection(refs, concepts, {}, {}, {}, (), (), {}, ())
    encoder = make_embedder(SMALL, precision="fp32", frames="all")
    build_index(collection, tmp_path / "index", encoder, tuning=False)
    annotator = Annotator.open(tmp_path / "index", embedder=encoder)
    explanation = explain(annotator, movie(99))
    assert explanation.frames == 3 and explanation.method == "additive"
    check_sums(explanation)
    # Two of the three frames are not in the picture, and each says about as much as the third.
    map_ = maps_of(explanation)[0]
    assert abs(map_.elsewhere) > 0.5 * abs(map_.grid.sum())
    again = explain(annotator, refs[0]).annotation
    assert again.same_image == refs[0].id not in {case.image_id for case in again.neighbors}


def test_it_explains_what_annotate_says(annotator: Annotator, images: list[ImageRef]) -> None:
    (annotation,) = annotator.stream(images[:1])
    explanation = explain(annotator, images[0])
    assert explanation.annotation.cuis == annotation.cuis
    assert explanation.annotation.scores == pytest.approx(annotation.scores, abs=1e-5)
    assert [c.cui for c in explanation.concepts] == list(annotation.cuis)
    for concept in explanation.concepts:
        voters = [case for case in explanation.annotation.neighbors if concept.cui in case.cuis]
        assert concept.voters == len(voters) > 0
        # The prior may have the rest.
        assert sum(case.weight for case in voters) <= concept.score + 1e-9


def test_an_image_of_the_index_does_not_explain_itself(
    annotator: Annotator, sample: SamplePaths
) -> None:
    index = {row.split(",")[0] for row in sample.split.read_text().split() if "train" in row}
    ref = next(ref for ref in find_images(sample.images).images if ref.id in index)
    (plain,) = annotator.stream([ref])
    assert plain.neighbors[0].image_id == ref.id
    explanation = explain(annotator, ref)
    assert explanation.annotation.same_image == ref.id
    assert ref.id not in {case.image_id for case in explanation.annotation.neighbors}
    frame = decode(ref.read(), at_least=annotator.embedder.image_size).frames[0]
    (vector,) = annotator.embedder.embed(annotator.embedder.prepare([frame]))
    near = find_neighborhood(annotator, ref.id, vector)
    own = annotator.project(vector[None])[0]
    assert len(near.nearest.cuis) == len(index) - 1  # fewer than are looked at
    assert (near.nearest.vectors @ own).max() < 1 - 1e-6


def test_what_is_deleted_is_the_contrast(annotator: Annotator, images: list[ImageRef]) -> None:
    explanation = explain(annotator, images[0])
    frame = decode(images[0].read(), at_least=annotator.embedder.image_size).frames[0]
    (vector,) = annotator.embedder.embed(annotator.embedder.prepare([frame]))
    near = find_neighborhood(annotator, "x", vector)
    for concept in explanation.concepts:
        if concept.contrast is None or concept.deletion is None:
            continue
        blank = blank_cells(frame, concept.contrast.grid.shape)
        covered = cover(frame, highest_tenth(concept.contrast.grid, blank))
        (after,) = annotator.project(
            annotator.embedder.embed(annotator.embedder.prepare([covered]))
        )
        expected = concept.contrast.total - near.contrast(concept.cui).vector @ after
        assert concept.deletion.highest == pytest.approx(expected, abs=1e-5)
        assert concept.heatmap is (concept.contrast if concept.deletion.tells else None)


def test_the_same_image_gives_the_same_maps(annotator: Annotator, images: list[ImageRef]) -> None:
    first, again = (explain(annotator, images[1]) for _ in range(2))
    for one, other in zip(maps_of(first), maps_of(again), strict=True):
        assert np.array_equal(one.grid, other.grid)
    for concept, same in zip(first.concepts, again.concepts, strict=True):
        if concept.deletion is not None and same.deletion is not None:
            assert concept.deletion.highest == same.deletion.highest
            assert np.array_equal(concept.deletion.random, same.deletion.random)


def test_the_contrast_is_of_the_nearest_cases(annotator: Annotator, images: list[ImageRef]) -> None:
    encoder = annotator.embedder
    frame = Image.open(io.BytesIO(images[0].read())).convert("L")
    (vector,) = encoder.embed(encoder.prepare([frame]))
    near = find_neighborhood(annotator, "x", vector)
    cui = near.annotation.cuis[0]
    has = near.nearest.has(cui)
    contrast = near.contrast(cui)
    assert (contrast.cases_with, contrast.cases_without) == (
        min(50, has.sum()),
        min(50, (~has).sum()),
    )
    expected = near.nearest.vectors[has][:50].mean(axis=0) - near.nearest.vectors[~has][:50].mean(
        axis=0
    )
    assert contrast.vector == pytest.approx(expected)
    everything = near.contrast("no such concept")
    assert everything.cases_with == 0 and everything.cases_without == len(near.nearest.cuis)
    assert everything.vector == pytest.approx(-near.nearest.vectors[:50].mean(axis=0))


def test_a_transformer_is_explained_by_its_patches(tmp_path: Path, images: list[ImageRef]) -> None:
    make_torchvision_importable()
    import timm
    import torch

    torch.manual_seed(0)
    model = timm.create_model("test_vit", num_classes=0).eval()
    half = (0.5, 0.5, 0.5)
    square = Preprocess(160, "letterbox", "bicubic", half, half)
    encoder = TorchEmbedder("vit", Encoder(model, square, "vit"), device="cpu", precision="fp32")
    concepts = {ref.id: (f"C{i % 2}",) for i, ref in enumerate(images[:10])}
    collection = Collection(images[:10], concepts, {}, {}, {}, (), (), {}, ())
    build_index(collection, tmp_path / "index", encoder, tuning=False)
    annotator = Annotator.open(tmp_path / "index", embedder=encoder)
    explanation = explain(annotator, images[11])
    assert explanation.method == "patches"
    assert all(np.isfinite(map_.grid).all() for map_ in maps_of(explanation))
    with pytest.raises(AnnotatorError, match="no sum over positions"):
        explain(annotator, images[11], "additive")
    assert explain(annotator, images[11], "occlusion").method == "occlusion"


def test_any_encoder_is_explained_by_occlusion(
    tuned_index: Path, tiny_embedder: TorchEmbedder, tmp_path: Path,
    draw_pattern: Callable[[Path, int, int], None],
) -> None:  # fmt: skip
    draw_pattern(tmp_path / "i.png", 1, 5)
    (ref,) = find_images(tmp_path / "i.png").images
    annotator = Annotator.open(tuned_index, embedder=tiny_embedder)
    explanation = explain(annotator, ref)
    assert explanation.method == "occlusion"
    (concept, *_) = (concept for concept in explanation.concepts if concept.contrast)
    map_ = maps_of(explanation)[0]
    assert map_.grid.shape == (11, 14)  # 40 x 32 pixels
    # The figures are what covering gives: the square around the cell in row 5 and column 7.
    frame = Image.open(tmp_path / "i.png")
    covered = frame.copy()
    high, wide = 32 / 11, 40 / 14
    covered.paste(
        round(float(np.asarray(frame).mean())),
        (round(6.5 * wide), round(4.5 * high), round(8.5 * wide), round(6.5 * high)),
    )
    (vector,) = annotator.project(tiny_embedder.embed(tiny_embedder.prepare([covered])))
    (own,) = tiny_embedder.embed(tiny_embedder.prepare([frame]))
    contrast = find_neighborhood(annotator, "i", own).contrast(concept.cui).vector
    assert map_.grid[5, 7] == pytest.approx(map_.total - contrast @ vector, abs=1e-5)
    with pytest.raises(AnnotatorError, match="not made from patches"):
        explain(annotator, ref, "patches")


def test_an_image_that_cannot_be_used(annotator: Annotator) -> None:
    with pytest.raises(ImageError):
        explain(annotator, ImageRef("bad", "bad.png", lambda: b"no picture"))


def test_an_image_without_concepts_has_no_maps(
    annotator: Annotator, images: list[ImageRef]
) -> None:
    voting = dataclasses.replace(annotator.voting, decider="top-r", top_r=0)
    silent = Annotator(annotator.stored, annotator.embedder, voting)
    explanation = explain(silent, images[0])
    assert explanation.concepts == () and explanation.annotation.neighbors


def test_covering_lays_the_mean_over_the_cells() -> None:
    picture = Image.fromarray(np.arange(200, dtype=np.uint8).reshape(10, 20))
    mask = np.zeros((2, 4), bool)
    mask[1, 2] = True
    covered = np.asarray(cover(picture, mask))
    assert (covered[5:, 10:15] == 100).all()
    changed = covered != np.asarray(picture)
    changed[5:, 10:15] = False
    assert not changed.any()
    colours = Image.merge("RGB", (picture, picture, picture))
    assert cover(colours, mask).getpixel((12, 7)) == (100, 100, 100)
