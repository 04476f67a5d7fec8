"""How categories look: a colour and a form each, so that either tells them apart."""

from __future__ import annotations

import math
from typing import NamedTuple

Point = tuple[float, float]


class Mark(NamedTuple):
    """A colour and a form.

    Attributes:
        colour: On a light ground.
        dark: On a dark ground.
        form: Corners of a polygon around (0, 0), y upwards, about 1 from it.
    """

    colour: str
    dark: str
    form: tuple[Point, ...]


def _regular(corners: int, turn: float, size: float, inner: float = 1.0) -> tuple[Point, ...]:
    """A polygon, or a star where every other corner is nearer (`inner`) to the middle."""
    angles = [math.radians(turn + 360 * i / corners) for i in range(corners)]
    reach = [size * (inner if i % 2 else 1) for i in range(corners)]
    return tuple(
        (round(far * math.cos(angle), 3), round(far * math.sin(angle), 3))
        for far, angle in zip(reach, angles, strict=True)
    )


_CIRCLE = _regular(20, 0, 1.0)

# The colours are those of Okabe and Ito (2008), told apart by the colour-blind, too; their black is
# the ink of the ground.
MARKS = (
    Mark("#0072b2", "#3d9bdc", _CIRCLE),
    Mark("#e69f00", "#e69f00", _regular(3, 90, 1.35)),
    Mark("#009e73", "#00b585", _regular(4, 45, 1.3)),
    Mark("#cc79a7", "#d98cb8", _regular(4, 0, 1.3)),
    Mark("#d55e00", "#ee7519", _regular(3, -90, 1.35)),
    Mark("#56b4e9", "#8fd0f7", _regular(6, 30, 1.15)),
    Mark("#1b2530", "#e5eaef", _regular(8, 0, 1.5, 0.4)),
    Mark("#f0e442", "#f0e442", _regular(10, 90, 1.5, 0.5)),
)
REST = Mark("#a9b1b9", "#57626d", _CIRCLE)
EDGE = ("#3c4650", "#0c1116")  # around each point, on a light and on a dark ground
