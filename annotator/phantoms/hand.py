"""Radiographs of the hand: carpals, metacarpals and phalanges of children and adults."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from annotator.phantoms.canvas import Array, Canvas, Point, Stroke, bump, clamp, pose, step
from annotator.phantoms.cases import Case


class Bone(NamedTuple):
    """A long bone from its near end ``base`` to its far end ``tip``; sizes in canvas units."""

    base: Point
    tip: Point
    width: float
    physis: str  # which end carries the growth plate in a child: "base" or "tip"


class Break(NamedTuple):
    """A fracture across a long bone: where along it, how oblique, how far the far part slips."""

    at: float
    slope: float
    slip: float
    bend: float
    gap: float


# Thumb to little finger: metacarpal base and head, direction of the finger in degrees from
# upright, then the lengths of its phalanges; an adult's hand with its palm one unit long.
_RAYS: tuple[tuple[Point, Point, float, tuple[float, ...]], ...] = (
    ((-0.21, 0.37), (-0.4, 0.12), -28.0, (0.25, 0.17)),
    ((-0.12, 0.32), (-0.23, -0.08), -11.0, (0.33, 0.19, 0.13)),
    ((-0.03, 0.31), (-0.06, -0.12), -2.0, (0.37, 0.23, 0.14)),
    ((0.06, 0.33), (0.1, -0.06), 6.0, (0.34, 0.21, 0.14)),
    ((0.14, 0.36), (0.24, 0.03), 15.0, (0.26, 0.15, 0.12)),
)
_CARPALS: tuple[tuple[Point, Point], ...] = (
    ((-0.02, 0.4), (0.055, 0.085)),  # capitate
    ((0.08, 0.42), (0.05, 0.07)),  # hamate
    ((-0.1, 0.54), (0.07, 0.06)),  # scaphoid
    ((0.01, 0.545), (0.055, 0.05)),  # lunate
    ((0.11, 0.52), (0.045, 0.05)),  # triquetrum
    ((-0.16, 0.44), (0.05, 0.05)),  # trapezium
    ((-0.095, 0.41), (0.035, 0.045)),  # trapezoid
    ((0.13, 0.49), (0.03, 0.032)),  # pisiform
)


def render(case: Case) -> Array:
    """The picture of a hand case, float32 ``[h, w]`` in [0, 1]."""
    canvas, rng, shot = Canvas(250, 320), case.anatomy(), case.acquisition()
    child = case.variant == "child"
    age = rng.uniform(0.15, 0.85) if child else 1.0  # of skeletal maturity
    bones = _bones(rng, shot)
    broken, fracture = -1, None
    if "fracture" in case.findings:
        broken, fracture = _fracture(case.finding("fracture"))
    soft = canvas.strokes(
        [Stroke([bone.base, bone.tip], bone.width * 1.5 + 0.065) for bone in bones[:19]]
        + [Stroke([bones[k].tip, bones[k].base], 0.14) for k in (2, 5, 9, 13, 17)],
        0.02,
    )
    palm = canvas.polygon([
        (-0.36, 0.1), (-0.28, -0.1), (-0.08, -0.14), (0.12, -0.09), (0.28, 0.02), (0.25, 0.35),
        (0.21, 0.6), (0.23, 1.2), (-0.24, 1.2), (-0.22, 0.62), (-0.3, 0.4)], 0.03)  # fmt: skip
    image = 0.2 * np.maximum(soft, palm) + 0.1 * palm
    skeleton = np.zeros_like(image)
    for k, bone in enumerate(bones):
        _draw_bone(canvas, skeleton, bone, age, fracture if k == broken else None)
    for k, (center, radii) in enumerate(_CARPALS):
        # Carpals ossify one after the other and grow until they touch.
        grown = min(1.6 * age - 0.1 * k, 1.0)
        if grown > 0.15:
            rho = canvas.rho(center, (radii[0] * grown, radii[1] * grown), 0.3 * (k % 3 - 1))
            inside = step((rho - 1) * min(radii), 0.012)
            skeleton += inside * (0.24 + 0.1 * bump(rho - 0.92, 0.1))
    trabeculae = 1 + 0.08 * canvas.noise(rng, 0.014)
    image = image + skeleton * trabeculae * (rng.uniform(0.8, 1.1) * (0.8 + 0.2 * age))
    return _expose(image, shot, child)


def _expose(image: Array, shot: np.random.Generator, child: bool) -> Array:
    factor = shot.uniform(0.85, 1.08)
    size = (round(250 * factor * shot.uniform(0.95, 1.08)), round(320 * factor))
    zoom = (0.98, 1.18) if child else (0.9, 1.03)
    image = pose(
        image, shot, size, turn=0.16, zoom=zoom, shift=0.03, bend=0.007, mirror=shot.random() < 0.5
    )
    image = shot.uniform(0.02, 0.08) + image * shot.uniform(0.95, 1.4)
    grain = shot.standard_normal(image.shape, dtype=np.float32)
    image = image + shot.uniform(0.012, 0.035) * grain * np.sqrt(clamp(image) + 0.05)
    return clamp(image) ** shot.uniform(0.7, 1.05)


def _bones(rng: np.random.Generator, shot: np.random.Generator) -> list[Bone]:
    """Phalanges and metacarpals ray by ray from the thumb, then radius and ulna."""
    stout, spread = rng.uniform(0.88, 1.12), shot.uniform(0.6, 1.5)
    bones = []
    for ray, (base, head, lean, lengths) in enumerate(_RAYS):
        width = stout * (0.082 if ray else 0.09)
        bones.append(Bone(base, head, width, "tip" if ray else "base"))
        point, heading = head, math.radians(lean * spread + shot.uniform(-3, 3))
        for k, length in enumerate(lengths):
            start = (point[0] + 0.022 * math.sin(heading), point[1] - 0.022 * math.cos(heading))
            reach = length * rng.uniform(0.95, 1.05) - 0.022
            point = (start[0] + reach * math.sin(heading), start[1] - reach * math.cos(heading))
            bones.append(Bone(start, point, width * (0.86, 0.74, 0.58)[k + (ray == 0)], "base"))
            heading += math.radians(shot.uniform(-4, 4))
    bones.append(Bone((-0.1, 1.25), (-0.095, 0.615), 0.17 * stout, "tip"))
    bones.append(Bone((0.13, 1.25), (0.125, 0.635), 0.1 * stout, "tip"))
    return bones


def _fracture(rng: np.random.Generator) -> tuple[int, Break]:
    bone = int(rng.choice([0, 1, 3, 4, 7, 8, 11, 12, 15, 15, 16, 16, 19, 19]))
    at = rng.uniform(0.72, 0.84) if bone == 19 else rng.uniform(0.35, 0.72)
    way = int(rng.choice([-1, 1]))
    return bone, Break(
        at,
        rng.uniform(-0.7, 0.7),
        way * rng.uniform(0.1, 0.35),
        way * rng.uniform(0.05, 0.4),
        rng.uniform(0.010, 0.022),
    )


def _draw_bone(
    canvas: Canvas, skeleton: Array, bone: Bone, age: float, fracture: Break | None
) -> None:
    """Add one long bone to ``skeleton``: a waisted tube with a cortex and knuckled ends."""
    (x0, y0), (x1, y1) = bone.base, bone.tip
    length = math.hypot(x1 - x0, y1 - y0)
    reach = bone.width * 1.6
    rows = _span(canvas.y[:, 0], min(y0, y1) - reach, max(y0, y1) + reach)
    cols = _span(canvas.x[0], min(x0, x1) - reach, max(x0, x1) + reach)
    dx, dy = canvas.x[:, cols] - x0, canvas.y[rows] - y0
    ux, uy = (x1 - x0) / length, (y1 - y0) / length
    along, across = dx * ux + dy * uy, dy * ux - dx * uy
    half = bone.width / 2
    gap: Array | float = 0.0
    if fracture:
        line = along - fracture.at * length - fracture.slope * across
        beyond = step(-line, 0.004)
        slipped = fracture.slip * bone.width + fracture.bend * np.clip(line, 0, None)
        across = across + beyond * slipped
        gap = bump(line, fracture.gap)
    t = along / length
    # Ends are wider than the shaft; the base is the broader of the two.
    waist = 0.62 + 0.42 * np.abs(2 * t - 1) ** 2.2 - 0.08 * t
    wall = np.abs(across) - half * clamp(waist, 0.3, 1.1)
    corner = half * 0.75
    cap = np.abs(along - length / 2) - length / 2
    outside = np.hypot(np.clip(wall + corner, 0, None), np.clip(cap + corner, 0, None))
    distance = outside + np.minimum(np.maximum(wall, cap) + corner, 0) - corner
    inside = step(distance, 0.008)
    shaft = clamp(1 - (2 * t - 1) ** 2 * 1.1, 0.15)
    cortex = bump(distance + 0.16 * half, 0.011) * (0.5 + 0.7 * shaft)
    opacity = inside * (0.22 + 0.2 * cortex + 0.03 * (1 - shaft))
    if age < 1:  # cartilage does not stop X-rays: a dark plate between shaft and epiphysis
        where = 0.26 * bone.width / max(length, 0.2)
        plate = (t - where) if bone.physis == "base" else (1 - where - t)
        clear = 0.022 * (1.15 - age)
        opacity = opacity * (1 - 0.95 * step(np.abs(plate) * length - clear, 0.008))
        end = step(plate, 0.02)
        shrink = step(np.abs(across) - half * (0.45 + 0.5 * age), 0.01)
        opacity = opacity * (1 - end * (1 - shrink))
    opacity = opacity * (1 - 0.85 * gap)
    skeleton[rows, cols] = np.maximum(skeleton[rows, cols], opacity)


def _span(axis: Array, low: float, high: float) -> slice:
    """The indices of ``axis`` between two values."""
    return slice(int(np.searchsorted(axis, low)), int(np.searchsorted(axis, high)))
