"""Image processors of transformers: read rightly, or refused; never taken for what they are not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_models import HALF, transformers

from annotator.encoders.image_processor import check_processor, read_processor
from annotator.encoders.preprocess import Preprocess
from annotator.errors import AnnotatorError

SQUARE = {"height": 64, "width": 64}
THREE = (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("kind", "settings", "expected"),
    [
        (  # DINOv2's
            "BitImageProcessor",
            {"size": {"shortest_edge": 128}, "crop_size": {"height": 112, "width": 112}},
            (112, "crop", "bicubic", 0.875),
        ),
        ("CLIPImageProcessor", {"size": {"shortest_edge": 64}, "crop_size": SQUARE},
         (64, "crop", "bicubic", 1.0)),
        ("ViTImageProcessor", {"size": SQUARE}, (64, "stretch", "bilinear", 1.0)),
        ("SiglipImageProcessor", {"size": SQUARE}, (64, "stretch", "bicubic", 1.0)),
        ("SiglipImageProcessor", {"size": SQUARE, "resample": 1}, (64, "stretch", "lanczos", 1.0)),
        ("DeiTImageProcessor", {"size": {"height": 128, "width": 128}, "crop_size": SQUARE},
         (64, "stretch", "bicubic", 0.5)),
        ("ConvNextImageProcessor",
         {"size": {"shortest_edge": 112}, "crop_pct": 0.875, "resample": 3},
         (112, "crop", "bicubic", 0.875)),
        ("ConvNextImageProcessor",
         {"size": {"shortest_edge": 384}, "crop_pct": 0.875, "resample": 3},
         (384, "stretch", "bicubic", 1.0)),
        ("EfficientNetImageProcessor", {"size": SQUARE, "resample": 3},
         (64, "stretch", "bicubic", 1.0)),
        ("EfficientNetImageProcessor",
         {"size": SQUARE, "resample": 3, "rescale_offset": True, "rescale_factor": 1 / 127.5,
          "include_top": False},
         (64, "stretch", "bicubic", 1.0)),
        ("ViTImageProcessor", {"size": SQUARE, "do_normalize": False},
         (64, "stretch", "bilinear", 1.0)),
        ("ViTImageProcessor", {"size": SQUARE, "do_rescale": False, "image_mean": [127.5] * 3,
                               "image_std": [127.5] * 3},
         (64, "stretch", "bilinear", 1.0)),
    ],
)  # fmt: skip
def test_settings_are_read_as_the_processor_means_them(
    kind: str, settings: dict[str, Any], expected: tuple[Any, ...]
) -> None:
    processor = getattr(transformers(), kind)(**settings)
    found = read_processor(processor.to_dict(), "it")
    assert (found.size, found.resize, found.interpolation, found.crop_pct) == expected
    check_processor(processor, found, "it")
    # The same for a picture of another shape.
    coarse = np.random.default_rng(1).integers(0, 256, (4, 3, 3), np.uint8)
    image = Image.fromarray(coarse).resize((600, 900), Image.Resampling.BICUBIC)
    theirs = np.asarray(processor(images=image, return_tensors="pt")["pixel_values"][0])
    ours = (found(image) / 255 - np.array(found.mean)) / np.array(found.std)
    levels = np.abs(ours.transpose(2, 0, 1) - theirs) * np.reshape(found.std, (3, 1, 1))
    assert levels.mean() < 0.01


def test_sizes_as_older_versions_wrote_them() -> None:
    common = {"image_mean": HALF, "image_std": HALF, "resample": 3}
    cropped = read_processor({"size": 64, "crop_size": 56, "do_center_crop": True, **common}, "it")
    assert cropped == Preprocess(56, "crop", "bicubic", THREE, THREE, 0.875)
    stretched = read_processor({"size": 64, **common}, "it")
    assert stretched == Preprocess(64, "stretch", "bicubic", THREE, THREE)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"size": {"height": 64, "width": 32}}, "no squares but 32 x 64"),
        ({"size": {"shortest_edge": 64}}, "without cropping"),
        ({"size": {"longest_edge": 64}}, "resizes to"),
        ({"size": {"shortest_edge": 64, "longest_edge": 99}}, "resizes to"),
        ({"size": SQUARE, "do_resize": False}, "does not resize"),
        ({"size": SQUARE, "do_center_crop": True, "crop_size": 80}, "crops 80 pixels of 64"),
        ({"size": SQUARE, "max_num_patches": 256}, "NaFlex"),
        ({"size": SQUARE, "resample": 4}, "4"),
        ({"size": SQUARE, "image_mean": [0.5]}, "values to unpack"),
        ({}, "size"),
    ],
)
def test_other_kinds_are_refused(settings: dict[str, Any], said: str) -> None:
    common = {"image_mean": HALF, "image_std": HALF}
    with pytest.raises(AnnotatorError, match="of a kind that is not supported") as error:
        read_processor({**common, **settings}, "tiny")
    assert said in error.value.message and "tiny" in error.value.message


def test_what_the_settings_do_not_tell_is_found_on_a_picture() -> None:
    """A processor that inverts, and two ways to read one wrongly."""
    t = transformers()

    class Inverts(t.ViTImageProcessor):  # type: ignore[misc,name-defined]
        def __call__(self, images: Any, **options: Any) -> Any:
            return super().__call__(Image.eval(images, lambda level: 255 - level), **options)

    processor = t.ViTImageProcessor(size=SQUARE)
    right = read_processor(processor.to_dict(), "it")
    check_processor(processor, right, "it")
    wrong = Preprocess(64, "letterbox", right.interpolation, right.mean, right.std)
    smaller = Preprocess(32, "stretch", right.interpolation, right.mean, right.std)
    for other, preprocess in (
        (Inverts(size=SQUARE), right),
        (processor, wrong),
        (processor, smaller),
    ):
        with pytest.raises(AnnotatorError, match="does more than resize"):
            check_processor(other, preprocess, "it")
