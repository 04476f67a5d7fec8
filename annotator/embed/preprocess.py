"""From a decoded image to the square of pixels that an encoder takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# Raised whenever decoding or preprocessing changes what pixels an image gives. It is part of each
# encoder's fingerprint, so vectors of other pixels are never mixed with new ones.
DECODER_VERSION = 1

Resize = Literal["letterbox", "stretch", "crop"]
_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


@dataclass(frozen=True)
class Preprocess:
    """How an encoder wants its input. Part of the encoder's fingerprint.

    Attributes:
        size: Side of the square in pixels.
        resize: What happens to an image that is not square. "letterbox" keeps all of it and its
            proportions, on black; "stretch" keeps all of it; "crop" keeps its centre.
        interpolation: "bicubic" or "bilinear", both antialiased.
        mean: Per channel (R, G, B), in 0..1, subtracted from pixel / 255.
        std: Per channel, in 0..1, divided by.
    """

    size: int
    resize: Resize
    interpolation: Literal["bicubic", "bilinear"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __call__(self, image: Image.Image) -> NDArray[np.uint8]:
        """Resize one "L" or "RGB" image to uint8[size, size, 3].

        A grey image is resized as grey and its channel repeated afterwards: the same bytes as
        resizing three equal channels, at a third of the work.
        """
        return np.array(self._fit(image).convert("RGB"))

    def _fit(self, image: Image.Image) -> Image.Image:
        resample, size = _FILTERS[self.interpolation], self.size
        if self.resize == "stretch":
            return image.resize((size, size), resample)
        sides = image.width, image.height
        scale = size / (max(sides) if self.resize == "letterbox" else min(sides))
        width, height = (max(1, round(side * scale)) for side in sides)
        if self.resize == "letterbox":
            if width == height:
                return image.resize((size, size), resample)
            canvas = Image.new(image.mode, (size, size))
            canvas.paste(
                image.resize((width, height), resample),
                ((size - width) // 2, (size - height) // 2),
            )
            return canvas
        left, top = (width - size) / 2 / scale, (height - size) / 2 / scale
        box = (left, top, left + size / scale, top + size / scale)
        clipped = (max(0.0, box[0]), max(0.0, box[1]), min(sides[0], box[2]), min(sides[1], box[3]))
        return image.resize((size, size), resample, box=clipped)
