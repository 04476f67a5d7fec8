"""Preprocessing: resizes a decoded image to the square of pixels that an encoder takes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# Raised with each change of decoding or preprocessing that changes pixels. It is part of each
# encoder's fingerprint, so that vectors of other pixels are never mixed with new ones.
DECODER_VERSION = 2

Resize = Literal["letterbox", "stretch", "crop"]
# Left, top, right, bottom as parts of a picture's width and height; outside 0..1 is padding.
Box = tuple[float, float, float, float]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
_FILTERS = {name: Image.Resampling[name.upper()] for name in get_args(Interpolation)}


@dataclass(frozen=True)
class Preprocess:
    """The preprocessing of an encoder; part of its fingerprint.

    Attributes:
        size: Side of the square in pixels.
        resize: What happens to an image that is not square. "letterbox" keeps all of it and its
            proportions, on black; "stretch" keeps all of it; "crop" keeps its centre.
        interpolation: How pixels are resampled, antialiased.
        mean: Per channel (R, G, B), in 0..1, subtracted from pixel / 255.
        std: Per channel, in 0..1, divided by.
        crop_pct: "crop" and "stretch": the part of the shorter side (of both sides) that is kept.
            0.875 is what others write as "resize to 256, crop to 224".
    """

    size: int
    resize: Resize
    interpolation: Interpolation
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    crop_pct: float = 1.0

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain types, for the fingerprint; without a `crop_pct` of 1."""
        fields = asdict(self)
        if self.crop_pct == 1:  # indexes that were built before there was one record none
            del fields["crop_pct"]
        return fields

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Preprocess:
        """The reverse of `to_dict`; unknown fields are ignored.

        Raises:
            KeyError: A field is missing.
        """
        return cls(
            int(fields["size"]),
            fields["resize"],
            fields["interpolation"],
            three(fields["mean"]),
            three(fields["std"]),
            float(fields.get("crop_pct", 1.0)),
        )

    @property
    def smallest_side(self) -> int:
        """The smallest side in pixels that an image may be decoded to."""
        return math.ceil(self.size / self.crop_pct)

    def __call__(self, image: Image.Image) -> NDArray[np.uint8]:
        """Resize one "L" or "RGB" image to uint8[size, size, 3].

        A grey image is resized as grey and its channel repeated afterwards: the same bytes as
        resizing three equal channels, at a third of the work.
        """
        fitted = self._fit(image)
        if fitted.mode != "L":
            return np.array(fitted.convert("RGB"))
        grey, pixels = np.asarray(fitted), np.empty((self.size, self.size, 3), np.uint8)
        for channel in range(3):  # twice as fast as PIL's conversion
            pixels[:, :, channel] = grey
        return pixels

    def stack(self, images: Sequence[Image.Image]) -> NDArray[np.uint8]:
        """Resize images to uint8[n, size, size, 3]."""
        pixels = [self(image) for image in images]
        return pixels[0][None] if len(pixels) == 1 else np.stack(pixels)

    def box(self, width: int, height: int) -> Box:
        """The part of a picture of this size that the square shows."""
        if self.resize == "letterbox":
            inner, offset = self._letterbox(width, height)
            left, top = -offset[0] / inner[0], -offset[1] / inner[1]
            return (left, top, left + self.size / inner[0], top + self.size / inner[1])
        left, top, right, bottom = self._kept(width, height)
        return (left / width, top / height, right / width, bottom / height)

    def _fit(self, image: Image.Image) -> Image.Image:
        resample, size = _FILTERS[self.interpolation], self.size
        if self.resize != "letterbox":
            return image.resize((size, size), resample, box=self._kept(image.width, image.height))
        (width, height), offset = self._letterbox(image.width, image.height)
        if width == height:
            return image.resize((size, size), resample)
        canvas = Image.new(image.mode, (size, size))
        canvas.paste(image.resize((width, height), resample), offset)
        return canvas

    def _letterbox(self, width: int, height: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Size and place of the whole picture in the square."""
        inner_width, inner_height = self._scaled(width, height, self.size / max(width, height))
        offset = ((self.size - inner_width) // 2, (self.size - inner_height) // 2)
        return (inner_width, inner_height), offset

    def _kept(self, width: int, height: int) -> Box:
        """The picture's pixels that fill the square."""
        if self.resize == "stretch":
            x, y = width * (1 - self.crop_pct) / 2, height * (1 - self.crop_pct) / 2
            return (x, y, width - x, height - y)
        scale, size = self.size / self.crop_pct / min(width, height), self.size
        inner_width, inner_height = self._scaled(width, height, scale)
        left, top = (inner_width - size) / 2 / scale, (inner_height - size) / 2 / scale
        right, bottom = left + size / scale, top + size / scale
        return (max(0.0, left), max(0.0, top), min(width, right), min(height, bottom))

    @staticmethod
    def _scaled(width: int, height: int, scale: float) -> tuple[int, int]:
        return max(1, round(width * scale)), max(1, round(height * scale))


def preprocess_of(size: Any, resize: Resize, config: Mapping[str, Any]) -> Preprocess:
    """Preprocessing with the interpolation, mean and std that timm and open_clip record."""
    interpolation = config["interpolation"]
    return Preprocess(
        size=int(size),
        resize=resize,
        interpolation=interpolation if interpolation in _FILTERS else "bicubic",
        mean=three(config["mean"]),
        std=three(config["std"]),
    )


def three(values: Any) -> tuple[float, float, float]:
    """One number per channel."""
    red, green, blue = (float(v) for v in values)
    return red, green, blue
