"""Drawing primitives: soft implicit shapes, blurred outlines, band-limited noise, pose.

Every picture is drawn in the anatomy's own coordinates on a :class:`Canvas` and only then posed
(turned, shifted, bent) and sampled at its final size, so that a shape's code never sees the pose.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Array: TypeAlias = NDArray[np.floating[Any]]
Point: TypeAlias = tuple[float, float]

_SUPERSAMPLE = 2

# Weights of four neighbouring control points at seven places between the middle two, [7, 4].
_CATMULL_ROM = np.vander(np.arange(7) / 7, 4, increasing=True) @ (
    0.5 * np.array([[0, 2, 0, 0], [-1, 0, 1, 0], [2, -5, 4, -1], [-1, 3, -3, 1]])
)


class Stroke(NamedTuple):
    """A smooth line through ``points`` (canvas units), ``width`` wide, of brightness ``value``."""

    points: Sequence[Point]
    width: float
    value: float = 1.0


class Canvas:
    """A pixel grid with square pixels: y runs from -1 (top) to 1 (bottom), x is 0 in the middle.

    Attributes:
        x: Columns' centres, float32 ``[1, width]``.
        y: Rows' centres, float32 ``[height, 1]``.
        scale: Pixels per unit.
    """

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.scale = height / 2
        self.x: Array = ((np.arange(width, dtype=np.float32) + 0.5 - width / 2) / self.scale)[None]
        self.y: Array = ((np.arange(height, dtype=np.float32) + 0.5) / self.scale - 1)[:, None]

    def rho(self, center: Point, radii: Point, angle: float = 0.0, taper: float = 0.0) -> Array:
        """Elliptic radius of each pixel, float32 ``[h, w]``: 0 at the centre, 1 on the outline.

        Args:
            center: Centre in canvas units.
            radii: Half axes in canvas units.
            angle: Turn in radians, clockwise on the screen.
            taper: Above 0 the shape widens towards its second axis' positive end (an egg).
        """
        dx, dy = self.x - center[0], self.y - center[1]
        if angle:
            cos, sin = math.cos(angle), math.sin(angle)
            dx, dy = dx * cos + dy * sin, dy * cos - dx * sin
        v = dy / radii[1]
        u = dx / radii[0]
        if taper:
            u = u / (1 + taper * v)
        squared: Array = u * u + v * v
        return np.sqrt(squared)

    def ellipse(
        self,
        center: Point,
        radii: Point,
        angle: float = 0.0,
        soft: float = 0.02,
        taper: float = 0.0,
    ) -> Array:
        """Soft-edged ellipse as a mask in [0, 1], float32 ``[h, w]``."""
        return step((self.rho(center, radii, angle, taper) - 1) * min(radii), soft)

    def blob(
        self, rng: np.random.Generator, center: Point, radii: Point, rough: float, soft: float
    ) -> Array:
        """An ellipse whose outline wanders by about ``rough`` times its radius, as a mask."""
        dx, dy = self.x - center[0], self.y - center[1]
        theta = np.arctan2(dy / radii[1], dx / radii[0])
        outline = np.ones_like(theta)
        for k, phase in enumerate(rng.uniform(0, 2 * math.pi, 6).tolist(), start=2):
            outline += (rough / math.sqrt(k)) * np.cos(k * theta + phase)
        return step((self.rho(center, radii) - outline) * min(radii), soft)

    def polygon(self, points: Sequence[Point], soft: float = 0.01) -> Array:
        """The inside of the smooth closed curve through ``points``, as a mask."""
        picture, draw = self._sheet()
        draw.polygon(self._pixels(spline(points, closed=True)), fill=255)
        return self._read(picture, soft)

    def strokes(self, strokes: Sequence[Stroke], soft: float = 0.005) -> Array:
        """Smooth lines as a mask; a later line overpaints an earlier one."""
        picture, draw = self._sheet()
        for points, width, value in strokes:
            line = self._pixels(spline(points) if len(points) > 2 else np.asarray(points))
            pixels = max(1, round(width * self.scale * _SUPERSAMPLE))
            fill = round(255 * value)
            draw.line(line, fill=fill, width=pixels)
            if pixels > 12:  # thin lines need no round ends
                for end in (line[0], line[-1]):
                    draw.circle(end, pixels / 2, fill=fill)
        return self._read(picture, soft)

    def bones(self, lines: Sequence[Sequence[Point]], width: float, marrow: float = 0.6) -> Array:
        """Tubes with bright cortical edges and a core of brightness ``marrow``, as a mask."""
        outer = [Stroke(line, width) for line in lines]
        inner = [Stroke(line, width * 0.62, marrow) for line in lines]
        # Bone by bone, so that where two cross the upper one's edges stay visible.
        paired = [stroke for pair in zip(outer, inner, strict=True) for stroke in pair]
        return self.strokes(paired, soft=width * 0.12)

    def noise(self, rng: np.random.Generator, cell: float, cell_y: float | None = None) -> Array:
        """Band-limited Gaussian noise, about zero mean and unit variance, float32 ``[h, w]``.

        Args:
            rng: Source of randomness.
            cell: Grain in canvas units along x.
            cell_y: Grain along y; the same as ``cell`` if not given.
        """
        return noise(
            rng, (self.height, self.width), cell * self.scale, (cell_y or cell) * self.scale
        )

    def _sheet(self) -> tuple[Image.Image, ImageDraw.ImageDraw]:
        picture = Image.new("L", (self.width * _SUPERSAMPLE, self.height * _SUPERSAMPLE))
        return picture, ImageDraw.Draw(picture)

    def _pixels(self, points: NDArray[np.floating]) -> list[Point]:
        middle = np.array([self.width / 2, self.height / 2])
        scaled = (points * self.scale + middle) * _SUPERSAMPLE
        return [(x, y) for x, y in scaled.tolist()]

    def _read(self, picture: Image.Image, soft: float) -> Array:
        # A box with a Gaussian's variance: three times faster, and edges become plain ramps.
        radius = math.sqrt(3) * soft * self.scale
        small = picture.reduce(_SUPERSAMPLE).filter(ImageFilter.BoxBlur(radius))
        return np.asarray(small, np.float32) / 255


def step(distance: Array, soft: float) -> Array:
    """1 inside (negative distance), 0 outside, a smooth ramp of half width ``soft`` between."""
    t = clamp(0.5 - distance / (2 * soft))
    ramp: Array = t * t * (3 - 2 * t)
    return ramp


def bump(distance: Array, width: float) -> Array:
    """A bell of height 1 where ``distance`` is 0, e.g. a cortical edge along an outline."""
    squared: Array = (distance / width) ** 2
    return np.exp(-squared)


def clamp(image: Array, low: float = 0.0, high: float = 1.0) -> Array:
    """``image`` with values outside ``low`` to ``high`` brought to the nearer of them."""
    clamped: Array = np.clip(image, low, high)
    return clamped


def union(*masks: Array) -> Array:
    """The largest of the masks at each pixel."""
    largest: Array = np.maximum.reduce(masks)
    return largest


def stretch(points: Sequence[Point], x: float, y: float = 1.0) -> list[Point]:
    """``points`` with their coordinates multiplied by ``x`` and ``y``; -1 mirrors."""
    return [(px * x, py * y) for px, py in points]


def symmetric(right: Sequence[Point], width: float = 1.0) -> list[Point]:
    """A closed outline from its right half, ``width`` times as wide."""
    half = stretch(right, width)
    return half + stretch(half[::-1], -1)


def paint(image: Array, mask: Array, value: float | Array) -> Array:
    """``image`` with ``value`` laid over it where ``mask`` says so."""
    painted: Array = image + mask * (value - image)
    return painted


def spline(points: Sequence[Point], *, closed: bool = False) -> NDArray[np.float64]:
    """Points of the Catmull-Rom spline through ``points``, float64 ``[m, 2]``."""
    p = np.asarray(points, np.float64)
    p = np.vstack([p[-1], p, p[:2]]) if closed else np.vstack([p[0], p, p[-1]])
    quads = np.stack([p[i : len(p) - 3 + i] for i in range(4)], axis=1)
    return np.vstack([(_CATMULL_ROM @ quads).reshape(-1, 2), p[-2]])


def noise(rng: np.random.Generator, shape: tuple[int, int], cell_x: float, cell_y: float) -> Array:
    """Band-limited Gaussian noise: a coarse random grid enlarged by bicubic interpolation.

    Args:
        rng: Source of randomness.
        shape: Height and width in pixels.
        cell_x: Grain along x in pixels.
        cell_y: Grain along y in pixels.

    Returns:
        float32 ``[h, w]``, about zero mean and unit variance.
    """
    height, width = shape
    coarse = (max(2, round(height / cell_y)), max(2, round(width / cell_x)))
    grid = rng.standard_normal(coarse, dtype=np.float32)
    smooth = resize(grid, (width, height))
    # Interpolation averages: 0.7 per axis is the loss of standard deviation of a cubic kernel.
    return smooth * (1.0 if coarse == (height, width) else 1.35)


def resize(image: Array, size: tuple[int, int]) -> Array:
    """Bicubic resampling of a float32 ``[h, w]`` image to ``size`` = (width, height)."""
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC), np.float32)


def blur(image: Array, radius: float) -> Array:
    """A cheap wide blur of about ``radius`` pixels: down and up again."""
    height, width = image.shape
    small = (max(2, round(width / radius)), max(2, round(height / radius)))
    return resize(resize(image, small), (width, height))


def pose(
    image: Array,
    rng: np.random.Generator,
    size: tuple[int, int],
    *,
    turn: float,
    zoom: tuple[float, float],
    shift: float,
    bend: float,
    trapezoid: float = 0.0,
    mirror: bool = False,
    extend: bool = True,
) -> Array:
    """Sample a drawn picture at its final size as a patient and an operator would have it.

    Args:
        image: The drawing, float32 ``[h, w]``.
        rng: Source of randomness.
        size: Width and height of the result in pixels.
        turn: Largest turn either way, radians.
        zoom: Smallest and largest part of the drawing's height that is shown.
        shift: Largest shift either way, as a part of the drawing's height.
        bend: Size of a smooth random displacement, as a part of the drawing's height.
        trapezoid: How much narrower the top is shown than the bottom, as a part of the width.
        mirror: Exchange left and right.
        extend: Continue the drawing's edges outwards; otherwise what lies outside is 0.

    Returns:
        float32 ``[height, width]``.
    """
    cells = 8
    height = image.shape[0]
    if extend:
        image = np.pad(image, height // 8, mode="edge")
    angle = rng.uniform(-turn, turn)
    reach = rng.uniform(*zoom) * height / size[1]
    dx, dy = rng.uniform(-shift, shift, 2) * height
    field = np.stack([noise(rng, (cells + 1, cells + 1), 3, 3) for _ in range(2)]) * bend * height
    gx, gy = np.meshgrid(np.linspace(0, size[0], cells + 1), np.linspace(0, size[1], cells + 1))
    u, v = (gx - size[0] / 2) * reach, (gy - size[1] / 2) * reach
    u = u * (1 + trapezoid * (0.5 - gy / size[1]))
    u = -u if mirror else u
    sx = image.shape[1] / 2 + u * math.cos(angle) - v * math.sin(angle) + dx + field[0]
    sy = image.shape[0] / 2 + u * math.sin(angle) + v * math.cos(angle) + dy + field[1]
    mesh = []
    xs, ys = np.rint(gx[0]).astype(int), np.rint(gy[:, 0]).astype(int)
    for i in range(cells):
        for j in range(cells):
            corners = ((i, j), (i + 1, j), (i + 1, j + 1), (i, j + 1))
            quad = tuple(float(s[c]) for c in corners for s in (sx, sy))
            box = (int(xs[j]), int(ys[i]), int(xs[j + 1]), int(ys[i + 1]))
            mesh.append((box, quad))
    posed = Image.fromarray(image).transform(
        size, Image.Transform.MESH, mesh, Image.Resampling.BILINEAR
    )
    return np.asarray(posed, np.float32)
