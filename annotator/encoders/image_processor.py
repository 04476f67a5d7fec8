"""The image processors of transformers, read from their settings as our preprocessing.

Theirs is not run on images: ours decodes and resizes the same way for every encoder, in a thread
without torch, and its settings are in the fingerprint.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from annotator.encoders.preprocess import Interpolation, Preprocess, Resize, three
from annotator.errors import AnnotatorError

# PIL.Image.Resampling, as processors record it.
_INTERPOLATION: dict[int, Interpolation] = {
    0: "nearest",
    1: "lanczos",
    2: "bilinear",
    3: "bicubic",
}
_CONVNEXT_STRETCHES_FROM = 384
_MOST_DIFFERENCE = 0.02  # of grey levels in 0..1, on average: other rounding of the same thing


def read_processor(settings: Mapping[str, Any], source: str) -> Preprocess:
    """The preprocessing that a processor's settings (preprocessor_config.json) describe.

    Args:
        settings: Of the processor.
        source: What it is called in errors.

    Raises:
        AnnotatorError: It gives no squares of one size, or is of another kind.
    """
    try:
        size, resize, crop_pct = _geometry(settings)
        mean, std = _normalisation(settings)
        interpolation = _INTERPOLATION[int(settings.get("resample", 2))]
    except (KeyError, TypeError, ValueError) as error:
        raise AnnotatorError(
            f"The image processor of {source} is of a kind that is not supported: {error}.",
            "Supported are those that give squares of one size: resized, cropped, normalised.",
        ) from error
    return Preprocess(size, resize, interpolation, mean, std, crop_pct)


def check_processor(processor: Any, preprocess: Preprocess, source: str) -> None:
    """Check on a picture that the processor itself gives what `preprocess` does.

    Raises:
        AnnotatorError: It does not: it does something that its usual settings do not tell.
    """
    side = preprocess.smallest_side
    coarse = np.random.default_rng(0).integers(0, 256, (3, 4, 3), np.uint8)
    image = Image.fromarray(coarse).resize((side * 4 // 3, side), Image.Resampling.BICUBIC)
    theirs = np.asarray(processor(images=image, return_tensors="pt")["pixel_values"][0], np.float32)
    mean, std = (np.array(v, np.float32) for v in (preprocess.mean, preprocess.std))
    ours = (preprocess(image) / np.float32(255) - mean) / std
    shape = (3, preprocess.size, preprocess.size)
    if theirs.shape == shape:
        difference = np.abs(theirs.transpose(1, 2, 0) - ours) * std
        if difference.mean() <= _MOST_DIFFERENCE:
            return
    raise AnnotatorError(
        f"The image processor of {source} ({type(processor).__name__}) does more than resize, "
        "crop and normalise.",
        "Supported are those that give squares of one size: resized, cropped, normalised.",
    )


def _geometry(settings: Mapping[str, Any]) -> tuple[int, Resize, float]:
    """Side of the square, how it comes about, and the part that is kept."""
    if "max_num_patches" in settings:
        raise ValueError("it cuts images of any shape into patches (NaFlex)")
    if not settings.get("do_resize", True):
        raise ValueError("it does not resize")
    crops = bool(settings.get("do_center_crop", False))
    size = settings["size"]
    if isinstance(size, int):  # as older versions wrote it
        size = {"shortest_edge": size} if crops else {"height": size, "width": size}
    if set(size) == {"height", "width"}:
        resized, resize = _side(size), "stretch"
    elif set(size) == {"shortest_edge"}:
        resized, resize = int(size["shortest_edge"]), "crop"
    else:
        raise ValueError(f"it resizes to {size}")
    if crops:
        cropped = _side(settings["crop_size"])
        if cropped > resized:
            raise ValueError(f"it crops {cropped} pixels of {resized}")
        return cropped, resize, cropped / resized  # type: ignore[return-value]
    if resize == "stretch":
        return resized, "stretch", 1.0
    if "crop_pct" not in settings:
        raise ValueError("it keeps the proportions of images without cropping them")
    # ConvNeXT's: the larger pictures are stretched, of the smaller ones the centre is cropped.
    if resized >= _CONVNEXT_STRETCHES_FROM:
        return resized, "stretch", 1.0
    return resized, "crop", float(settings["crop_pct"])


def _side(size: int | Mapping[str, int]) -> int:
    if isinstance(size, int):
        return size
    if size["height"] != size["width"]:
        raise ValueError(f"its pictures are no squares but {size['width']} x {size['height']}")
    return int(size["height"])


def _normalisation(settings: Mapping[str, Any]) -> tuple[Any, Any]:
    """Mean and deviation for pixels in 0..1.

    Processors compute (pixel * factor - offset - mean) / std for pixels in 0..255.
    """
    factor = float(settings.get("rescale_factor", 1 / 255)) * 255
    factor = factor if settings.get("do_rescale", True) else 255.0
    offset = 1.0 if settings.get("rescale_offset", False) else 0.0
    mean, std = [0.0] * 3, [1.0] * 3
    if settings.get("do_normalize", True):
        mean, std = settings["image_mean"], settings["image_std"]
    if settings.get("include_top", False):  # EfficientNet's divides once more
        std = [s * s for s in std]
    # A hair's breadth off 1 by way of 1 / 255 * 255, which would show in the fingerprint.
    factor = 1.0 if abs(factor - 1) < 1e-6 else factor
    return three((m + offset) / factor for m in mean), three(s / factor for s in std)
