"""Chest radiographs, postero-anterior and lateral.

The drawing adds opacities (air 0, soft tissue about 0.6, bone and fluid more), as a radiograph
adds attenuation along each ray; exposure and detector come last.
"""

from __future__ import annotations

import math

import numpy as np

from annotator.phantoms.canvas import (
    Array,
    Canvas,
    Point,
    Stroke,
    blur,
    clamp,
    pose,
    step,
    stretch,
    symmetric,
    union,
)
from annotator.phantoms.cases import Case


def render(case: Case) -> Array:
    """The picture of a chest case, float32 ``[h, w]`` in [0, 1]."""
    opacity = _frontal(case) if case.view == "postero-anterior" else _lateral(case)
    rng = case.acquisition()
    size = (320, 320) if case.view == "postero-anterior" else (288, 340)
    factor = rng.uniform(0.86, 1.08)
    size = (round(size[0] * factor * rng.uniform(0.95, 1.08)), round(size[1] * factor))
    mirror = case.view == "lateral" and rng.random() < 0.3
    image = pose(
        opacity, rng, size, turn=0.06, zoom=(0.84, 0.94), shift=0.025, bend=0.008, mirror=mirror
    )
    image = image + rng.uniform(0.08, 0.2) * (blur(image, 40) - image)
    image = rng.uniform(0.86, 1.1) * clamp(image, high=2) ** rng.uniform(0.95, 1.35)
    grain = rng.standard_normal(image.shape, dtype=np.float32)
    image = image + rng.uniform(0.012, 0.035) * grain * np.sqrt(image + 0.05)
    return clamp(image)


def _frontal(case: Case) -> Array:
    canvas, rng = Canvas(300, 300), case.anatomy()
    width = rng.uniform(0.92, 1.06)
    domes = {-1: rng.uniform(0.32, 0.48), 1: rng.uniform(0.38, 0.54)}
    ratio = rng.uniform(0.82, 1.06)
    if "cardiomegaly" in case.findings:
        ratio = case.finding("cardiomegaly").uniform(1.22, 1.55)
    lean = 0.0
    if "scoliosis" in case.findings:
        bend = case.finding("scoliosis")
        lean = float(bend.choice([-1, 1]) * bend.uniform(0.1, 0.2))

    lungs = {side: canvas.polygon(_lung(side, width, domes[side]), 0.012) for side in (-1, 1)}
    both = union(*lungs.values())
    center = union(_heart(canvas, ratio, domes), _mediastinum(canvas, rng, lean))
    air = both * (1 - 0.86 * center)

    body = _body(canvas, width)
    image = body * 0.66
    abdomen = step(0.55 - canvas.y, 0.3) * (1 - both)
    image = image + 0.16 * abdomen - 0.46 * air
    image = image + 0.07 * center * both
    image = image + air * (0.15 * _vessels(canvas, rng) + _texture(canvas, rng))
    image = image + _skeleton(canvas, rng, width, lean)
    if rng.random() < 0.5:
        image = image + _breasts(canvas, rng)
    if rng.random() < 0.6:  # the gas in the stomach, under the left dome
        gas = canvas.ellipse((0.42, domes[1] + 0.16), (rng.uniform(0.08, 0.18), 0.07), soft=0.03)
        image = image - 0.22 * gas * (1 - both)
    windpipe = [
        Stroke([(-0.01, -1.0), (0.0, -0.6), (-0.02, -0.3)], 0.06),
        Stroke([(-0.02, -0.3), (-0.1, -0.18)], 0.04, 0.7),
        Stroke([(-0.02, -0.3), (0.1, -0.14)], 0.035, 0.7),
    ]
    image = image - 0.1 * canvas.strokes(windpipe, 0.016)
    for name in case.findings:
        image = _add_frontal(canvas, image, case.finding(name), name, lungs, air, width, domes)
    return image * body


def _add_frontal(
    canvas: Canvas,
    image: Array,
    rng: np.random.Generator,
    name: str,
    lungs: dict[int, Array],
    air: Array,
    width: float,
    domes: dict[int, float],
) -> Array:
    height = rng.uniform(0, 1)  # drawn first, for the lateral view to show the same
    side = int(rng.choice([-1, 1]))
    lung, dome = lungs[side], domes[side]
    if name == "effusion":  # fluid sinks and climbs the lateral wall: the meniscus
        across = clamp(side * canvas.x / (0.72 * width), 0, 1.1)
        surface = dome - 0.6 * height + 0.08 - 0.3 * across**4
        fluid = step(surface - canvas.y, 0.04) * step(-side * canvas.x, 0.05)
        return image + rng.uniform(0.34, 0.46) * fluid * air * lung
    if name == "consolidation":
        center = (side * rng.uniform(0.3, 0.52), 0.3 - 0.75 * height)
        radii = (rng.uniform(0.15, 0.28), rng.uniform(0.15, 0.28))
        patch = _patch(canvas, rng, center, radii, 0.09)
        return image + rng.uniform(0.22, 0.42) * patch * lung * air
    if name == "nodule":
        y, radius = 0.25 - 0.75 * height, rng.uniform(0.04, 0.085)
        center = (side * rng.uniform(0.24, 0.55 + 0.4 * min(0.0, y)), y)  # the apex is narrow
        spot = canvas.blob(rng, center, (radius, radius), 0.06, 0.025)
        return image + rng.uniform(0.14, 0.28) * spot * lung
    if name == "pneumothorax":  # the lung falls away from the wall and the apex
        depth = rng.uniform(0.1, 0.28)
        points = [
            (x - side * depth * min(1, abs(x) * 1.6), y + depth * max(0.0, 0.35 - y))
            for x, y in _lung(side, width, dome)
        ]
        collapsed = canvas.polygon(points, 0.008)
        edge = clamp(4 * collapsed * (1 - collapsed)) * lung
        free = lung * (1 - collapsed)
        return image * (1 - 0.45 * free) + 0.12 * edge + rng.uniform(0.02, 0.08) * collapsed * lung
    if name == "pacemaker":
        at = (0.55 * side, -0.42 + rng.uniform(-0.05, 0.05))
        lead = [(0.16 * side, -0.6), (-0.07, -0.3), (-0.08, 0.12), (0.14, 0.36)]
        return image + _pacemaker(canvas, at, lead)
    return image  # a large heart and a bent spine are drawn with the anatomy


def _patch(
    canvas: Canvas, rng: np.random.Generator, center: Point, radii: Point, soft: float
) -> Array:
    """The mottled opacity of a consolidation."""
    patch = canvas.blob(rng, center, radii, 0.2, soft)
    return patch * clamp(0.85 + 0.26 * canvas.noise(rng, 0.06), 0.1, 1.3)


def _lung(side: int, width: float, dome: float) -> list[Point]:
    outline = [
        (0.22, -0.84), (0.36, -0.8), (0.5, -0.62), (0.62, -0.3), (0.69, 0.05), (0.72, 0.35),
        (0.735, dome + 0.2), (0.66, dome + 0.12), (0.55, dome + 0.03), (0.38, dome),
        (0.24, dome + 0.05), (0.1, dome + 0.12), (0.08, 0.2), (0.08, -0.2),
        (0.09, -0.55), (0.13, -0.76),
    ]  # fmt: skip
    return stretch(outline, side * width)


def _heart(canvas: Canvas, ratio: float, domes: dict[int, float]) -> Array:
    base = max(domes.values())
    outline = [
        (0.0, -0.3), (-0.1, -0.12), (-0.2, 0.1), (-0.2, 0.3), (-0.1, base + 0.06),
        (0.15, base + 0.1), (0.36, base + 0.04), (0.43, 0.3), (0.37, 0.12),
        (0.24, -0.06), (0.13, -0.2),
    ]  # fmt: skip
    lift = 0.12 * (ratio - 1)
    return canvas.polygon(
        [(0.03 + (x - 0.03) * ratio, y - lift * (0.5 - y)) for x, y in outline], 0.014
    )


def _mediastinum(canvas: Canvas, rng: np.random.Generator, lean: float) -> Array:
    knob = rng.uniform(0.07, 0.11)
    band = canvas.polygon(
        [(-0.12, -1.0), (-0.13, -0.5), (-0.12, -0.1), (-0.1, 0.6), (0.12, 0.6), (0.13, -0.15),
         (0.12, -0.45), (0.12, -1.0)], 0.02,
    )  # fmt: skip
    aorta = canvas.ellipse((0.1, -0.3), (knob, knob * 1.15), soft=0.02)
    hila = [
        canvas.blob(rng, (s * 0.17, y), (0.07, 0.12), 0.15, 0.04) * 0.55
        for s, y in ((-1, 0.0), (1, -0.05))
    ]
    spine = canvas.strokes([Stroke(_spine(lean), 0.17)], 0.02) * 0.7
    return union(band, aorta, spine, *hila)


def _spine(lean: float) -> list[Point]:
    return [(lean * math.sin(1.7 * (y + 0.9)), y) for y in np.linspace(-1.0, 1.0, 9).tolist()]


def _body(canvas: Canvas, width: float) -> Array:
    outline = [
        (0.2, -1.15), (0.24, -0.92), (0.5, -0.84), (0.85, -0.72), (1.0, -0.4), (0.93, 0.0),
        (0.92, 0.6), (0.96, 1.2),
    ]  # fmt: skip
    return canvas.polygon(symmetric(outline, width), 0.02)


def _vessels(canvas: Canvas, rng: np.random.Generator) -> Array:
    """Branching vessels that leave the hila and thin out towards the periphery."""
    strokes = []
    for side in (-1, 1):
        for _ in range(13):
            heading, width = rng.uniform(-1.35, 1.35), rng.uniform(0.018, 0.032)
            x, y = side * 0.13, rng.uniform(-0.12, 0.1)
            for _ in range(4):
                pace = rng.uniform(0.09, 0.15)
                end = (x + side * pace * math.cos(heading), y + pace * math.sin(heading))
                strokes.append(Stroke([(x, y), end], width, min(1.0, width * 36)))
                fork = heading + rng.choice([-1, 1]) * rng.uniform(0.4, 0.8)
                twig = (end[0] + side * pace * math.cos(fork), end[1] + pace * math.sin(fork))
                strokes.append(Stroke([end, twig], width * 0.5, min(1.0, width * 24)))
                (x, y), width = end, width * 0.72
                heading += rng.uniform(-0.3, 0.3)
    return canvas.strokes(strokes, 0.006)


def _texture(canvas: Canvas, rng: np.random.Generator) -> Array:
    fine, coarse = canvas.noise(rng, 0.025), canvas.noise(rng, 0.15)
    return 0.012 * fine + 0.016 * coarse


def _skeleton(canvas: Canvas, rng: np.random.Generator, width: float, lean: float) -> Array:
    posterior, anterior = [], []
    first, gap, droop = rng.uniform(-0.84, -0.78), rng.uniform(0.135, 0.155), rng.uniform(0.1, 0.2)
    for k in range(10):
        y = first + gap * k
        wall = width * (0.2 + 0.54 * min(1.0, ((k + 1.2) / 5) ** 0.75))
        down = y + droop * (0.6 + 0.1 * k)
        for side in (-1, 1):
            shift = lean * math.sin(1.7 * (y + 0.9))
            back = [
                (0.07, y), (0.3 * wall, y - 0.05), (0.65 * wall, y - 0.01),
                (0.93 * wall, down - 0.03), (wall * 1.01, down + 0.05),
            ]  # fmt: skip
            posterior.append([(side * px + shift, py) for px, py in back])
            if k < 8:
                front = [
                    (wall * 1.01, down + 0.05), (0.93 * wall, down + 0.15),
                    (0.7 * wall, down + 0.24), (0.38 * wall, down + 0.3),
                ]  # fmt: skip
                anterior.append(stretch(front, side))
    clavicle = [(0.07, -0.6), (0.25, -0.66), (0.5, -0.69), (0.72, -0.79), (0.9, -0.83)]
    scapula = [(0.95, -0.7), (0.74, -0.5), (0.72, -0.25), (0.8, -0.02), (0.86, -0.3)]
    clavicles, scapulae = ([stretch(bone, s) for s in (-1, 1)] for bone in (clavicle, scapula))
    spine = canvas.strokes([Stroke(_spine(lean), 0.15)], 0.012)
    discs = 0.75 + 0.25 * np.sin(canvas.y * (2 * math.pi / 0.15))
    strength = rng.uniform(0.75, 1.2)
    bones: Array = (
        0.12 * canvas.bones(posterior, 0.055)
        + 0.055 * canvas.bones(anterior, 0.06, 0.8)
        + 0.15 * canvas.bones(clavicles, 0.06)
        + 0.07 * canvas.bones(scapulae, 0.06, 0.8)
        + 0.09 * spine * discs
    )
    return strength * bones


def _breasts(canvas: Canvas, rng: np.random.Generator) -> Array:
    size, y = rng.uniform(0.28, 0.38), rng.uniform(0.1, 0.3)
    parts = []
    for side in (-1, 1):
        rho = canvas.rho((side * 0.45, y), (size, size))
        parts.append(step(rho - 1, 0.06) * clamp(rho, 0.3) * step(y - canvas.y, 0.3))
    return rng.uniform(0.05, 0.1) * (parts[0] + parts[1])


def _pacemaker(canvas: Canvas, at: Point, lead: list[Point]) -> Array:
    box = np.maximum(np.abs(canvas.x - at[0]) / 0.11, np.abs(canvas.y - at[1]) / 0.09)
    body = step((canvas.rho(at, (0.115, 0.1)) * 0.5 + box * 0.5 - 1) * 0.1, 0.012)
    inside = canvas.ellipse((at[0], at[1] + 0.015), (0.07, 0.05), soft=0.02)
    wire = canvas.strokes(
        [Stroke([(at[0], at[1] - 0.08), *lead], 0.014), Stroke(lead[-2:], 0.02)], 0.004
    )
    device: Array = 0.55 * body + 0.15 * inside + 0.5 * wire
    return device


def _lateral(case: Case) -> Array:
    canvas, rng = Canvas(285, 300), case.anatomy()
    dome, depth = rng.uniform(0.38, 0.5), rng.uniform(0.92, 1.06)
    size = rng.uniform(0.85, 1.05)
    if "cardiomegaly" in case.findings:
        size = case.finding("cardiomegaly").uniform(1.22, 1.5)
    lung_outline = [
        (-0.02, -0.82), (0.2, -0.8), (0.4, -0.6), (0.54, -0.2), (0.58, 0.2), (0.54, dome + 0.28),
        (0.36, dome + 0.12), (0.1, dome), (-0.2, dome - 0.02), (-0.42, dome + 0.1),
        (-0.54, dome + 0.06), (-0.55, 0.1), (-0.48, -0.25), (-0.34, -0.55), (-0.2, -0.7),
    ]  # fmt: skip
    outline = stretch(lung_outline, depth)
    lung = canvas.polygon(outline, 0.015)
    second = canvas.polygon([(x, y + 0.07 * (y > 0.3)) for x, y in outline], 0.015)
    skin = [
        (-0.35, -1.2), (-0.42, -0.8), (-0.62, -0.5), (-0.72, 0.0), (-0.74, 1.2), (0.84, 1.2),
        (0.88, 0.2), (0.86, -0.4), (0.72, -0.8), (0.5, -1.2),
    ]  # fmt: skip
    body = canvas.polygon(stretch(skin, depth), 0.02)
    heart = canvas.ellipse((-0.24, 0.2), (0.25 * size, 0.34 * size), 0.5, 0.06)
    hilum = canvas.blob(rng, (0.0, -0.08), (0.11, 0.14), 0.15, 0.06)
    aorta = [(-0.12, -0.05), (-0.1, -0.3), (0.06, -0.4), (0.22, -0.3), (0.3, 0.0), (0.36, 0.45)]
    arch = canvas.strokes([Stroke(stretch(aorta, depth), 0.13)], 0.04)
    center = clamp(0.62 * heart + 0.4 * hilum + 0.2 * arch)
    air = (0.6 * lung + 0.4 * second) * (1 - center)

    # The spine darkens downwards as the shoulders' bulk gives way to lung.
    shoulders = step(canvas.y + 0.55, 0.4)
    image: Array = 0.74 - 0.44 * air + 0.12 * shoulders
    image = image + air * (0.12 * _side_vessels(canvas, rng) + _texture(canvas, rng))
    image = image + _side_skeleton(canvas, rng, depth)
    image = image - 0.12 * canvas.strokes([Stroke([(-0.02, -1.0), (0.0, -0.25)], 0.07)], 0.02)
    for name in case.findings:
        image = _add_lateral(canvas, image, case.finding(name), name, lung, air, dome)
    return image * body


def _add_lateral(
    canvas: Canvas,
    image: Array,
    rng: np.random.Generator,
    name: str,
    lung: Array,
    air: Array,
    dome: float,
) -> Array:
    height = rng.uniform(0, 1)
    if name == "effusion":
        surface = dome + 0.22 - 0.4 * height - 0.9 * clamp(canvas.x - 0.05) ** 2
        fluid = step(surface - canvas.y, 0.04)
        return image + rng.uniform(0.24, 0.38) * fluid * air
    if name == "consolidation":
        center = (rng.uniform(-0.3, 0.4), 0.3 - 0.75 * height)
        radii = (rng.uniform(0.14, 0.24), rng.uniform(0.12, 0.24))
        patch = _patch(canvas, rng, center, radii, 0.08)
        return image + rng.uniform(0.18, 0.34) * patch * lung
    if name == "nodule":
        center, radius = (rng.uniform(-0.35, 0.4), 0.25 - 0.75 * height), rng.uniform(0.04, 0.085)
        spot = canvas.blob(rng, center, (radius, radius), 0.06, 0.025)
        return image + rng.uniform(0.14, 0.28) * spot * lung
    if name == "pacemaker":
        lead = [(-0.2, -0.62), (0.0, -0.3), (-0.12, 0.1), (-0.34, 0.34)]
        return image + _pacemaker(canvas, (-0.56, -0.4), lead)
    return image  # a large heart is drawn with the anatomy


def _side_vessels(canvas: Canvas, rng: np.random.Generator) -> Array:
    strokes = []
    for angle in rng.uniform(0, 2 * math.pi, 22).tolist():
        length, turn = rng.uniform(0.25, 0.6), rng.uniform(-0.5, 0.5)
        path = []
        for part in (0.1, 0.4, 0.7, 1.0):
            heading, r = angle + turn * part, part * length
            path.append((r * math.cos(heading), r * math.sin(heading) - 0.08))
        strokes.append(Stroke(path, rng.uniform(0.008, 0.02), rng.uniform(0.4, 0.9)))
    return canvas.strokes(strokes, 0.007)


def _side_skeleton(canvas: Canvas, rng: np.random.Generator, depth: float) -> Array:
    curve = [(0.36, -0.95), (0.5, -0.6), (0.58, -0.2), (0.58, 0.2), (0.5, 0.6), (0.42, 1.0)]
    spine = canvas.strokes([Stroke(stretch(curve, depth), 0.2, 0.7)], 0.012)
    discs = step(0.25 - np.sin(canvas.y * (2 * math.pi / 0.16)), 0.3)
    ribs = []
    for k in range(9):
        y = -0.75 + 0.15 * k
        back, front = (0.66 - 0.25 * abs(y) ** 2) * depth, (-0.42 + 0.2 * max(0.0, -y)) * depth
        ribs.append([(back, y), (back - 0.15, y + 0.04), (0.0, y + 0.22), (front, y + 0.42)])
    sternum = [(-0.36 * depth, -0.62), (-0.52 * depth, -0.3), (-0.6 * depth, 0.1)]
    bones: Array = (
        0.12 * spine * (0.55 + 0.45 * discs)
        + 0.085 * canvas.bones(ribs, 0.05, 0.5)
        + 0.12 * canvas.bones([sternum], 0.055)
    )
    return rng.uniform(0.8, 1.2) * bones
