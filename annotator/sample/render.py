"""From a case to its picture."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from annotator.sample import brain, breast, chest, hand, head
from annotator.sample.canvas import Array, clamp
from annotator.sample.cases import Case

_RENDERERS = {
    "chest": chest.render,
    "head-ct": head.render,
    "brain-mr": brain.render,
    "breast-us": breast.render,
    "hand": hand.render,
}


def render(case: Case) -> Array:
    """The picture of a case: float32 ``[h, w]`` in [0, 1], 1 is white.

    Each picture says what it is in its lower left corner, should it leave its folder.
    """
    picture = _RENDERERS[case.study](case)
    height, width = _LABEL.shape
    picture[-height:, :width] += 0.35 * _LABEL
    return clamp(picture)


def _label(text: str) -> Array:
    font = ImageFont.load_default_imagefont()
    width, height = (int(edge) for edge in font.getbbox(text)[2:])
    sheet = Image.new("L", (width + 4, height + 2))
    ImageDraw.Draw(sheet).text((4, 0), text, fill=255, font=font)
    return np.asarray(sheet, np.float32) / 255


_LABEL = _label("PHANTOM")
