"""The picture of a case."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from annotator.phantoms import brain, breast, chest, hand, head
from annotator.phantoms.canvas import Array, clamp
from annotator.phantoms.cases import Case

Renderer = Literal["plain", "upsampled"]

_RENDERERS = {
    "chest": chest.render,
    "head-ct": head.render,
    "brain-mr": brain.render,
    "breast-us": breast.render,
    "hand": hand.render,
}


def render(case: Case, renderer: Renderer = "plain") -> Array:
    """The picture of a case: float32 ``[h, w]`` in [0, 1], 1 is white.

    Each picture says what it is in its lower left corner, should it leave its folder.

    Args:
        case: What is to be seen.
        renderer: ``plain``, or ``upsampled`` for the same picture as a generative network would
            leave it (`_upsampled`).
    """
    picture = _RENDERERS[case.study](case)
    if renderer == "upsampled":
        picture = _upsampled(picture)
    height, width = _LABEL.shape
    picture[-height:, :width] += 0.35 * _LABEL
    return clamp(picture)


def drawn_by(case: Case, finding: str) -> NDArray[np.bool_]:
    """The pixels that a finding changes clearly, bool ``[h, w]``.

    Patient, finding and image have random streams of their own, so nothing else changes.
    """
    without = replace(case, findings=tuple(name for name in case.findings if name != finding))
    return np.abs(render(case) - render(without)) > _CLEARLY


def _upsampled(picture: Array) -> Array:
    """A picture at half its size, enlarged by a transposed convolution of 3 x 3, stride 2.

    Its kernel overlaps unevenly, which leaves a faint checkerboard (Odena, Dumoulin and Olah 2016,
    "Deconvolution and checkerboard artifacts"), by which pictures of such networks are known.
    """
    height, width = picture.shape
    even = np.pad(picture, ((0, height % 2), (0, width % 2)), "edge")
    small = even.reshape(len(even) // 2, 2, -1, 2).mean(axis=(1, 3))
    for axis in (0, 1):
        small = small.swapaxes(0, axis)
        large = np.zeros((2 * len(small), small.shape[1]), np.float32)
        following = np.concatenate([small[1:], small[-1:]])
        large[::2] = small  # one of the kernel's three weights: 1
        large[1::2] = _OUTER_WEIGHT * (small + following)
        small = large.swapaxes(0, axis)
    return np.ascontiguousarray(small[:height, :width], np.float32)


def _label(text: str) -> Array:
    font = ImageFont.load_default_imagefont()
    width, height = (int(edge) for edge in font.getbbox(text)[2:])
    sheet = Image.new("L", (width + 4, height + 2))
    ImageDraw.Draw(sheet).text((4, 0), text, fill=255, font=font)
    return np.asarray(sheet, np.float32) / 255


_OUTER_WEIGHT = 0.52  # of the kernel of `_upsampled`; 0.5 would overlap evenly
_CLEARLY = 0.05  # of the range from black to white
_LABEL = _label("PHANTOM")
