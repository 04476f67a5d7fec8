"""Heads in slices: axial anatomy as tissue maps, shared by CT and MR, and the CT of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from annotator.phantoms.canvas import (
    Array,
    Canvas,
    Stroke,
    bump,
    clamp,
    paint,
    pose,
    step,
    stretch,
    union,
)
from annotator.phantoms.cases import Case


@dataclass(frozen=True)
class Tissues:
    """The tissues of a slice, each as a mask in [0, 1], float32 ``[h, w]``.

    Attributes:
        head: Everything inside the skin.
        skull: Bone of the vault.
        brain: Everything inside the vault.
        white: White matter.
        fluid: Ventricles and sulci.
        falx: The fold of dura in the midline.
        depth: Depth below the brain's surface, in canvas units, negative outside.
    """

    head: Array
    skull: Array
    brain: Array
    white: Array
    fluid: Array
    falx: Array
    depth: Array


def axial(canvas: Canvas, rng: np.random.Generator, level: str, swelling: float = 0.0) -> Tissues:
    """An axial slice through the cerebrum, forehead up.

    Args:
        canvas: The grid to draw on.
        rng: The patient's anatomy.
        level: ``ventricles`` or ``convexity``.
        swelling: 0 for ventricles of ordinary size, up to 1 for a severe hydrocephalus, which
            also closes the sulci.
    """
    # All numbers are drawn whatever the level, so that a patient's slices share one anatomy.
    rx, ry = rng.uniform(0.6, 0.7), rng.uniform(0.78, 0.86)
    age = rng.uniform(0, 1)  # wider sulci and ventricles
    bone, scalp = rng.uniform(0.035, 0.065), rng.uniform(0.05, 0.09)
    crease, edges = creases(canvas, rng, 0.12), canvas.noise(rng, 0.07)
    high = level == "convexity"
    if high:
        rx, ry = rx * 0.94, ry * 0.95
    rho = canvas.rho((0.0, 0.02), (rx, ry), taper=0.08)
    far = (1 - rho) * rx
    depth = far - bone
    brain = step(-depth, 0.012)
    head = step(-far - scalp, 0.012)
    skull = step(-far, 0.012) * (1 - brain)

    sulcal = (0.05 + 0.2 * age) * (1 - 0.9 * swelling) * (1.4 if high else 1.0)
    shallow = clamp(((0.26 if high else 0.17) - depth) / 0.12)
    sulci = step(crease - (sulcal * 1.1) * shallow, 0.1) * shallow * brain
    midline = step(np.abs(canvas.x) - (0.008 + 0.012 * age), 0.012)
    fissure = midline * brain if high else midline * brain * step(0.38 - np.abs(canvas.y), 0.03)
    rim = step(depth - (0.01 + 0.015 * age * (1 - swelling)), 0.012) * brain
    fluid = union(sulci, fissure, rim)
    ribbon = 0.055 + 0.02 * edges
    white = step(ribbon - depth, 0.02) * step(0.55 * shallow - crease, 0.15) * brain
    deep = np.zeros_like(rho)
    if not high:
        size = 0.8 + 0.35 * age + 1.2 * swelling
        fluid = np.maximum(fluid, _ventricles(canvas, size) * brain)
        fluid = np.maximum(fluid, _sylvian(canvas, rx, 0.012 + 0.03 * age * (1 - swelling)) * brain)
        deep = _deep_nuclei(canvas)
    falx = bump(np.abs(canvas.x), 0.012) * step(0.4 - np.abs(canvas.y), 0.02) * brain
    if high:
        falx = bump(np.abs(canvas.x), 0.012) * brain
    white = white * (1 - deep) * (1 - fluid)
    return Tissues(head, skull, brain, white, fluid, falx, depth)


def creases(canvas: Canvas, rng: np.random.Generator, cell: float) -> Array:
    """A field that is 0 along winding lines, as sulci run, and about 1 between them."""
    return np.minimum(np.abs(canvas.noise(rng, cell)), np.abs(canvas.noise(rng, cell * 1.3)))


def _ventricles(canvas: Canvas, size: float) -> Array:
    """The lateral ventricles and the third; ``size`` is 1 at middle age."""
    root, width = size**0.5, 0.075 * size
    parts = [Stroke([(0.0, -0.02), (0.0, 0.13)], 0.03 * size * size)]
    for s in (-1, 1):
        frontal = [(0.04, -0.08), (0.07 * size, -0.2), (0.16 * size, -0.3 - 0.03 * size)]
        body = [(0.035, -0.12), (0.06, 0.0)]
        occipital = [(0.06 + 0.05 * size, 0.16), (0.19 * root, 0.24), (0.2 * root, 0.34)]
        occipital.append((0.15, 0.4 + 0.04 * size))
        for line, wide in ((frontal, width), (body, 0.035 * size), (occipital, width)):
            parts.append(Stroke(stretch(line, s), wide))
    return canvas.strokes(parts, 0.012)


def _sylvian(canvas: Canvas, rx: float, width: float) -> Array:
    lines = [(0.92, -0.12), (0.68, -0.06), (0.62, 0.1)], [(0.68, -0.06), (0.62, -0.16)]
    strokes = [Stroke(stretch(line, s * rx), width) for s in (-1, 1) for line in lines]
    return canvas.strokes(strokes, 0.012)


def _deep_nuclei(canvas: Canvas) -> Array:
    parts = []
    for s in (-1, 1):
        parts.append(canvas.ellipse((s * 0.27, -0.03), (0.065, 0.15), s * 0.3, 0.03))
        parts.append(canvas.ellipse((s * 0.13, 0.1), (0.075, 0.11), -s * 0.4, 0.03))
        parts.append(canvas.ellipse((s * 0.16, -0.19), (0.035, 0.08), s * 0.2, 0.02))
    return union(*parts)


def render(case: Case) -> Array:
    """The picture of a head CT case in a brain window, float32 ``[h, w]`` in [0, 1]."""
    canvas, rng = Canvas(270, 300), case.anatomy()
    swelling = 0.0
    if "hydrocephalus" in case.findings:
        swelling = case.finding("hydrocephalus").uniform(0.45, 1.1)
    tissues = axial(canvas, rng, case.variant, swelling)
    contrast = rng.uniform(0.7, 1.2)
    gray, white, water = 0.46, 0.46 - 0.07 * contrast, 0.46 - 0.27 * contrast
    brain: Array = gray + (white - gray) * tissues.white + (water - gray) * tissues.fluid
    for name in case.findings:
        if name != "hydrocephalus":
            brain = _add(canvas, brain, case.finding(name), name, tissues)
    brain = np.maximum(brain, 0.62 * tissues.falx)
    if case.variant == "ventricles" and rng.random() < 0.6:  # calcified pineal and choroid plexus
        spots = [canvas.ellipse((0, 0.17), (0.022, 0.022), soft=0.01)]
        spots += [canvas.ellipse((s * 0.19, 0.28), (0.025, 0.018), soft=0.012) for s in (-1, 1)]
        brain = np.maximum(brain, 0.95 * union(*spots))
    fat = step(tissues.depth + 0.105, 0.02)  # the outer layer of the scalp
    scalp = 0.42 - 0.3 * fat
    image: Array = scalp * tissues.head
    image = paint(paint(image, tissues.skull, 1.25), tissues.brain, brain)
    # Beam hardening brightens the brain next to the bone.
    image = image + 0.06 * np.exp(-clamp(tissues.depth) / 0.05) * tissues.brain

    shot = case.acquisition()
    if shot.random() < 0.5:  # the headrest
        rest = canvas.rho((0.0, 0.1), (0.92, 0.94))
        image = image + 0.28 * bump(rest - 1, 0.012) * step(0.45 - canvas.y, 0.05)
    factor = shot.uniform(0.88, 1.1)
    size = (round(270 * factor), round(300 * factor))
    image = pose(
        image, shot, size, turn=0.12, zoom=(0.96, 1.12), shift=0.03, bend=0.006, extend=False
    )
    smooth = Canvas(*size)
    grain = smooth.noise(shot, 0.011) * 0.7 + smooth.noise(shot, 0.02) * 0.4
    image = image + shot.uniform(0.02, 0.05) * grain * step(0.02 - image, 0.03)
    air = clamp(8 * image)  # stays black whatever the window
    image = (image - 0.44) * shot.uniform(0.85, 1.3)
    return clamp((image + shot.uniform(0.38, 0.5)) * air)


def _add(
    canvas: Canvas, brain: Array, rng: np.random.Generator, name: str, tissues: Tissues
) -> Array:
    side = int(rng.choice([-1, 1]))
    if name == "infarction":  # a wedge of cytotoxic edema, its base on the cortex
        angle = rng.uniform(-0.5, 1.1)
        spread, amount = rng.uniform(0.32, 0.6), rng.uniform(0.08, 0.17)
        direction = np.arctan2(canvas.y - 0.02, side * canvas.x - 0.08)
        ragged = angle + 0.12 * canvas.noise(rng, 0.12)
        wedge = step(np.abs(direction - ragged) - spread, 0.1)
        wedge = wedge * step(0.2 - np.hypot(canvas.x, canvas.y), 0.05)
        wedge = wedge * step(-side * canvas.x, 0.03)
        target = 0.39 - amount
        return paint(brain, wedge * tissues.brain, np.minimum(brain, target))
    kind = rng.choice(["parenchymal", "subdural", "epidural"], p=[0.55, 0.25, 0.2])
    bright = rng.uniform(0.66, 0.9)
    if kind == "parenchymal":
        center = (side * rng.uniform(0.2, 0.4), rng.uniform(-0.35, 0.4))
        radii = (rng.uniform(0.07, 0.18), rng.uniform(0.07, 0.18))
        clot = canvas.blob(rng, center, radii, 0.12, 0.03)
        halo = canvas.blob(rng, center, (radii[0] + 0.06, radii[1] + 0.06), 0.12, 0.05)
        brain = brain - 0.1 * halo * (1 - clot)
    else:
        angle = rng.uniform(-0.7, 0.9)
        direction = np.arctan2(canvas.y, side * canvas.x)
        wide = rng.uniform(0.8, 1.2) if kind == "subdural" else rng.uniform(0.4, 0.6)
        along = clamp(1 - ((direction - angle) / wide) ** 2)
        thick = rng.uniform(0.05, 0.1) if kind == "subdural" else rng.uniform(0.12, 0.2)
        clot = step(tissues.depth - thick * np.sqrt(along), 0.015) * (along > 0)
    clot = clot * clamp(1 + 0.06 * canvas.noise(rng, 0.06), 0.8, 1.2)
    return paint(brain, clot, bright)
