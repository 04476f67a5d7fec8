"""The picture of a case."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from annotator.phantoms import brain, breast, chest, hand, head
from annotator.phantoms.canvas import Array, clamp
from annotator.phantoms.cases import Case

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


def drawn_by(case: Case, finding: str) -> NDArray[np.bool_]:
    """The pixels that a finding changes clearly, bool ``[h, w]``.

    Patient, finding and image have random streams of their own, so nothing else changes.
    """
    without = replace(case, findings=tuple(name for name in case.findings if name != finding))
    return np.abs(render(case) - render(without)) > _CLEARLY


def _label(text: str) -> Array:
    font = ImageFont.load_default_imagefont()
    width, height = (int(edge) for edge in font.getbbox(text)[2:])
    sheet = Image.new("L", (width + 4, height + 2))
    ImageDraw.Draw(sheet).text((4, 0), text, fill=255, font=font)
    return np.asarray(sheet, np.float32) / 255


_CLEARLY = 0.05  # of the range from black to white
_LABEL = _label("PHANTOM")
