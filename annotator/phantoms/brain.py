"""MR images of the brain in three planes, T1 and T2 weighted."""

from __future__ import annotations

import math

import numpy as np

from annotator.phantoms.canvas import (
    Array,
    Canvas,
    Point,
    Stroke,
    blur,
    bump,
    clamp,
    paint,
    pose,
    step,
    stretch,
    symmetric,
    union,
)
from annotator.phantoms.cases import Case
from annotator.phantoms.head import axial, creases

# Signal of each tissue, relative to the brightest, as the two weightings show them.
_TISSUES = ("fat", "muscle", "bone", "marrow", "fluid", "gray", "white")
_SIGNALS = {
    "T1": (0.92, 0.36, 0.06, 0.60, 0.13, 0.46, 0.68),
    "T2": (0.62, 0.22, 0.04, 0.35, 0.95, 0.52, 0.36),
}


def render(case: Case) -> Array:
    """The picture of a brain MR case, float32 ``[h, w]`` in [0, 1]."""
    canvas, rng = Canvas(290, 300), case.anatomy()
    signal = dict(zip(_TISSUES, _SIGNALS[case.variant], strict=True))
    draw = {"axial": _axial, "sagittal": _sagittal, "coronal": _coronal}[case.view]
    picture = _Picture(canvas, signal)
    brain = draw(picture, rng)
    if "tumor" in case.findings:
        picture.image = _tumor(canvas, picture.image, brain, case)
    return _scan(picture.image, case.acquisition())


class _Picture:
    """A picture in the making, as a stack of tissues with the signals of one weighting."""

    def __init__(self, canvas: Canvas, signal: dict[str, float]) -> None:
        self.canvas, self.signal = canvas, signal
        self.image: Array = np.zeros((canvas.height, canvas.width), np.float32)

    def lay(self, mask: Array, tissue: str | float, times: float = 1.0) -> None:
        """Lay a tissue (or a signal) over the picture where ``mask`` says so."""
        value = self.signal[tissue] if isinstance(tissue, str) else tissue
        self.image = paint(self.image, mask, value * times)


def _scan(image: Array, shot: np.random.Generator) -> Array:
    """Pose, the coil's uneven sensitivity, and the Rician noise of a magnitude image."""
    factor = shot.uniform(0.86, 1.1)
    size = (round(290 * factor), round(300 * factor))
    image = pose(image, shot, size, turn=0.1, zoom=(0.98, 1.12), shift=0.025, bend=0.008)
    grid = Canvas(*size)
    image = image * (1 + shot.uniform(0.04, 0.14) * grid.noise(shot, 1.0))
    image = image * shot.uniform(0.78, 1.15)
    sigma = shot.uniform(0.012, 0.045)
    real, imaginary = (sigma * grid.noise(shot, 0.008) for _ in range(2))
    magnitude = np.sqrt((image + real) ** 2 + imaginary**2)
    return clamp(magnitude ** shot.uniform(0.85, 1.15))


def _axial(picture: _Picture, rng: np.random.Generator) -> Array:
    t = axial(picture.canvas, rng, "ventricles")
    picture.lay(t.head, "fat")
    picture.lay(step((-0.075) - t.depth, 0.008), "muscle")
    picture.lay(t.skull, "bone")
    picture.lay(t.brain, "gray")
    picture.lay(t.white, "white")
    picture.lay(t.fluid, "fluid")
    picture.lay(t.falx, picture.signal["bone"] + 0.2)
    return t.brain


def _sagittal(picture: _Picture, rng: np.random.Generator) -> Array:
    """Midline slice, face to the left."""
    canvas = picture.canvas
    size = (rng.uniform(0.94, 1.06), rng.uniform(0.95, 1.05))
    age = rng.uniform(0, 1)

    def warp(*points: Point) -> list[Point]:
        return stretch(points, *size)

    head = canvas.polygon(warp(
        (0.05, -0.92), (-0.35, -0.85), (-0.62, -0.62), (-0.71, -0.35), (-0.73, -0.14),
        (-0.7, -0.02), (-0.85, 0.19), (-0.74, 0.27), (-0.77, 0.36), (-0.73, 0.41), (-0.75, 0.49),
        (-0.69, 0.57), (-0.69, 0.7), (-0.5, 0.79), (-0.3, 0.84), (-0.27, 1.3), (0.55, 1.3),
        (0.52, 0.8), (0.56, 0.42), (0.73, 0.1), (0.79, -0.25), (0.68, -0.62),
        (0.4, -0.86)), 0.008)  # fmt: skip
    inner = canvas.polygon(warp(
        (0.05, -0.86), (-0.34, -0.79), (-0.57, -0.58), (-0.65, -0.32), (-0.62, -0.06), (-0.3, 0.06),
        (0.0, 0.3), (0.2, 0.42), (0.45, 0.36), (0.66, 0.08), (0.73, -0.25), (0.62, -0.6),
        (0.37, -0.8)), 0.008)  # fmt: skip
    brain = canvas.polygon(warp(
        (-0.58, -0.27), (-0.51, -0.55), (-0.22, -0.74), (0.1, -0.79), (0.42, -0.69), (0.63, -0.42),
        (0.67, -0.14), (0.52, -0.03), (0.3, -0.07), (0.12, -0.12), (-0.1, -0.1), (-0.3, -0.03),
        (-0.52, -0.07)), 0.01)  # fmt: skip
    # Muscle and fat of face and neck, then the vault over them.
    picture.lay(head, "fat", 0.8)
    lumps = canvas.noise(rng, 0.09)
    flesh = step(0.06 - lumps * 0.12 + (0.08 - canvas.y) * 0.5, 0.06)
    picture.lay(head * flesh, "muscle")
    throat = warp((-0.62, 0.18), (-0.2, 0.2), (-0.06, 0.4), (-0.1, 0.7), (-0.08, 1.1))
    mouth = warp((-0.66, 0.42), (-0.3, 0.35))
    airway = canvas.strokes([Stroke(throat, 0.07), Stroke(mouth, 0.02)], 0.012)
    tongue = canvas.ellipse((-0.43 * size[0], 0.5), (0.2, 0.13), 0.3, 0.03)
    picture.lay(airway, 0.02)
    picture.lay(tongue, "muscle", 1.15)
    vault = step(0.5 - 0.5 * inner, 0.25)
    picture.lay(vault, "bone", 1.5)
    picture.lay(canvas.ellipse((-0.22, 0.07), (0.09, 0.07), soft=0.015), 0.02)
    cisterns = canvas.polygon(warp(
        (-0.6, -0.3), (-0.5, -0.6), (0.1, -0.82), (0.6, -0.5), (0.68, -0.1), (0.6, 0.16),
        (0.4, 0.33), (0.22, 0.36), (0.0, 0.2), (-0.1, 0.0), (-0.5, -0.04)), 0.01)  # fmt: skip
    picture.lay(cisterns, "fluid")

    depth = 0.32 - blur(1 - brain, 26) * 0.64
    shallow = clamp((0.26 - depth) / 0.1, 0.15)
    crease = creases(canvas, rng, 0.13)
    sulci = step(crease - (0.08 + 0.14 * age) * shallow, 0.08) * shallow
    picture.lay(brain, "gray")
    picture.lay(brain * step(0.42 * shallow - crease, 0.15), "white")
    picture.lay(brain * sulci, "fluid")
    # Below the corpus callosum: ventricle, thalamus, then the callosum itself and its sulcus.
    arc = warp(
        (-0.27, -0.15), (-0.34, -0.28), (-0.2, -0.42), (0.05, -0.46), (0.26, -0.37), (0.29, -0.23)
    )
    cavity = canvas.polygon([*arc, *warp((0.1, -0.16), (-0.1, -0.1))], 0.012)
    picture.lay(cavity, "gray")
    ventricle = cavity * canvas.ellipse((-0.02, -0.33), (0.24, 0.06 + 0.04 * age), 0.1, 0.02)
    picture.lay(ventricle, "fluid")
    cingulate = Stroke([(x * 1.16, y * 1.22 + 0.02) for x, y in arc], 0.02)
    picture.lay(canvas.strokes([cingulate], 0.01), "fluid")
    picture.lay(canvas.strokes([Stroke(arc, 0.062)], 0.01), "white", 1.05)
    picture.lay(canvas.ellipse((0.06, -0.22), (0.1, 0.07), soft=0.015), "gray", 1.1)

    stem = [Stroke(warp((0.06, -0.16), (0.07, 0.05), (0.14, 0.3), (0.2, 0.6), (0.16, 1.2)), 0.1)]
    cord = np.maximum(
        canvas.strokes(stem, 0.012), canvas.ellipse((0.05, 0.08), (0.1, 0.13), 0.1, 0.015)
    )
    canal = canvas.strokes([Stroke(warp((0.14, 0.3), (0.2, 0.6), (0.16, 1.2)), 0.19)], 0.012)
    picture.lay(canal, "fluid")
    folia_center = (0.26, 0.1)
    rings = np.hypot(canvas.x - folia_center[0], canvas.y - folia_center[1])
    folia = np.sin(rings * (2 * math.pi / 0.045)) * 0.5 + 0.5
    cerebellum = canvas.ellipse((0.4, 0.14), (0.2, 0.17), 0.2, 0.012)
    picture.lay(cerebellum, "gray")
    between = 0.5 * (picture.signal["gray"] + picture.signal["fluid"])
    picture.lay(cerebellum * folia * (rings > 0.1), between)
    picture.lay(canvas.ellipse((0.33, 0.13), (0.09, 0.05), 0.2, 0.03), "white")
    picture.lay(cord, "white", 0.95)
    picture.lay(canvas.ellipse((0.19, 0.1), (0.03, 0.06), 0.3, 0.012), "fluid")
    for k in range(6):
        center = (0.04 + 0.012 * k - 0.004 * k * k, 0.47 + 0.125 * k)
        box = np.maximum(np.abs(canvas.x - center[0]), 1.5 * np.abs(canvas.y - center[1]))
        body = step(box - 0.072, 0.012)
        picture.lay(body, "marrow")
    picture.image = picture.image * head
    return np.maximum(brain, cerebellum)


def _coronal(picture: _Picture, rng: np.random.Generator) -> Array:
    """Slice through the third ventricle, vertex up."""
    canvas = picture.canvas
    wide, age = rng.uniform(0.93, 1.07), rng.uniform(0, 1)
    crease = creases(canvas, rng, 0.12)

    def pair(*points: Point) -> list[Point]:
        return symmetric(points, wide)

    head = canvas.polygon(pair(
        (0.14, -0.94), (0.42, -0.84), (0.65, -0.5), (0.72, -0.05), (0.7, 0.3), (0.62, 0.55),
        (0.52, 0.75), (0.55, 1.3)), 0.008)  # fmt: skip
    vault = canvas.polygon(pair(
        (0.13, -0.88), (0.38, -0.78), (0.59, -0.46), (0.66, -0.05), (0.62, 0.26), (0.4, 0.4),
        (0.15, 0.42)), 0.008)  # fmt: skip
    rho = canvas.rho((0.0, -0.24), (0.62 * wide, 0.58))
    brain = canvas.polygon(pair(
        (0.12, -0.83), (0.35, -0.73), (0.55, -0.43), (0.61, -0.05), (0.57, 0.18), (0.4, 0.28),
        (0.24, 0.22), (0.14, 0.1)), 0.01)  # fmt: skip
    depth = (1 - rho) * 0.58
    picture.lay(head, "fat", 0.85)
    lumps = canvas.noise(rng, 0.1)
    flesh = step(-lumps * 0.1 + (0.2 - canvas.y) * 0.5, 0.08)
    picture.lay(head * flesh, "muscle")
    picture.lay(vault, "bone", 1.5)
    for s in (-1, 1):  # the mastoid's air cells
        picture.lay(canvas.blob(rng, (s * 0.5 * wide, 0.42), (0.11, 0.1), 0.2, 0.03), 0.05)
    picture.lay(canvas.ellipse((0.0, 0.72), (0.1, 0.14), soft=0.02), 0.03)
    cisterns = canvas.polygon(pair(
        (0.13, -0.85), (0.37, -0.75), (0.57, -0.44), (0.63, -0.04), (0.58, 0.21), (0.3, 0.33),
        (0.1, 0.36)), 0.01)  # fmt: skip
    picture.lay(cisterns, "fluid")
    shallow = clamp((0.22 - depth) / 0.1)
    sulci = step(crease - (0.08 + 0.16 * age) * shallow, 0.08) * shallow
    white = step(0.06 - depth, 0.02) * step(0.5 * shallow - crease, 0.15)
    picture.lay(brain, "gray")
    picture.lay(brain * white, "white")
    nuclei = [canvas.ellipse((s * 0.1, -0.13), (0.1, 0.08), -s * 0.4, 0.04) for s in (-1, 1)]
    nuclei += [canvas.ellipse((s * 0.29, -0.14), (0.055, 0.14), s * 0.35, 0.04) for s in (-1, 1)]
    picture.lay(0.75 * union(*nuclei), "gray")
    picture.lay(brain * sulci, "fluid")
    insula = [
        Stroke([(s * 0.6 * wide, 0.0), (s * 0.45, -0.02), (s * 0.42, -0.18)], 0.012 + 0.02 * age)
        for s in (-1, 1)
    ]
    size = 0.7 + 0.7 * age
    horns = [
        Stroke([(s * 0.03, -0.3), (s * 0.11, -0.37), (s * 0.19, -0.38 - 0.03 * size)], 0.07 * size)
        for s in (-1, 1)
    ]
    third = Stroke([(0.0, -0.2), (0.0, -0.02)], 0.03 * size)
    cleft = Stroke([(0.0, -0.86), (0.0, -0.5)], 0.012 + 0.014 * age)
    picture.lay(canvas.strokes([*insula, *horns, third, cleft], 0.01), "fluid")
    callosum = Stroke([(-0.16, -0.47), (0.0, -0.42), (0.16, -0.47)], 0.055)
    picture.lay(canvas.strokes([callosum], 0.012), "white", 1.05)
    folia = 0.5 + 0.5 * np.sin((canvas.y + 0.25 * np.abs(canvas.x)) * 130)
    for s in (-1, 1):
        cerebellum = canvas.ellipse((s * 0.22, 0.32), (0.2, 0.1), s * -0.12, 0.012)
        picture.lay(cerebellum, "gray")
        picture.lay(0.25 * cerebellum * folia, "fluid")
    stem = canvas.polygon(
        pair((0.1, -0.02), (0.12, 0.12), (0.08, 0.32), (0.05, 0.5), (0.045, 1.2)), 0.012
    )
    picture.lay(stem, "white", 0.95)
    picture.image = picture.image * head
    return brain


def _tumor(canvas: Canvas, image: Array, brain: Array, case: Case) -> Array:
    rng = case.finding("tumor")
    boxes = {
        "axial": (0.34, -0.4, 0.4),
        "coronal": (0.36, -0.52, -0.05),
        "sagittal": (0.36, -0.55, -0.3),
    }
    reach, top, bottom = boxes[case.view]
    side, across, along = int(rng.choice([-1, 1])), rng.uniform(0.35, 1.0), rng.uniform(0, 1)
    center = (side * across * reach, top + along * (bottom - top))
    radii = (rng.uniform(0.08, 0.19), rng.uniform(0.08, 0.19))
    ring, core = rng.random() < 0.5, canvas.blob(rng, center, radii, 0.12, 0.025)
    grain = 1 + 0.12 * canvas.noise(rng, 0.06)
    if "edema" in case.findings:  # water spreads between the fibres, finger by finger
        spread = case.finding("edema").uniform(0.06, 0.13)
        wide = canvas.blob(rng, center, (radii[0] + spread, radii[1] + spread), 0.3, 0.05)
        image = paint(image, wide * brain, 0.78)
    if case.variant == "T2":
        return paint(image, core * brain, rng.uniform(0.62, 0.85) * grain)
    image = paint(image, core * brain, rng.uniform(0.25, 0.36) * grain)
    if ring:  # the contrast medium's rim
        image = paint(image, bump(core - 0.55, 0.3) * brain * (core > 0.03), 0.95)
    return image
