"""Ultrasound images of the breast: tissue layers under speckle, with or without a mass."""

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
    noise,
    paint,
    pose,
    step,
)
from annotator.phantoms.cases import Case


def render(case: Case) -> Array:
    """The picture of a breast ultrasound case, float32 ``[h, w]`` in [0, 1]."""
    canvas, rng = Canvas(340, 260), case.anatomy()
    echo = _layers(canvas, rng)
    for name in case.findings:
        echo = _mass(canvas, echo, case.finding(name), name)
    shot = case.acquisition()
    echo = echo - shot.uniform(0.05, 0.2) * (canvas.y + 1)  # attenuation with depth
    echo = echo + shot.uniform(-0.06, 0.06) + 0.03 * canvas.noise(shot, 0.7)
    image = clamp(echo + shot.uniform(0.085, 0.13) * _speckle(canvas, shot), 0.02)
    factor = shot.uniform(0.85, 1.08)
    size = (round(340 * factor), round(260 * factor * shot.uniform(0.92, 1.1)))
    fan = shot.uniform(0.15, 0.35) if shot.random() < 0.3 else 0.0
    margin = shot.uniform(1.04, 1.12)
    zoom = (margin, margin + 0.04)
    image = pose(
        image, shot, size, turn=0, zoom=zoom, shift=0.01, bend=0, trapezoid=fan, extend=False
    )
    return clamp(_furniture(image) * shot.uniform(0.85, 1.15))


def _layers(canvas: Canvas, rng: np.random.Generator) -> Array:
    """Mean echo of skin, fat, gland and muscle, in display units."""
    wave = 0.06 * canvas.noise(rng, 0.9)
    y = canvas.y + wave
    gland_top, gland_bottom = rng.uniform(-0.68, -0.4), rng.uniform(0.1, 0.4)
    fibrous = rng.uniform(0.3, 1.0)
    lobules = canvas.noise(rng, 0.26, 0.16)
    septa = bump(canvas.noise(rng, 0.34, 0.15), 0.18)
    fat = 0.3 + 0.2 * septa + 0.02 * lobules
    streaks = canvas.noise(rng, 0.22, 0.035)
    islands = step(-lobules * 0.3 - (0.4 * fibrous - 0.15), 0.25)
    gland = 0.34 + 0.24 * islands + 0.05 * streaks * fibrous
    striae = np.sin(y * (2 * math.pi / 0.075) + canvas.noise(rng, 0.3) * 1.5)
    muscle = 0.3 + 0.09 * striae
    edge = 0.04 * canvas.noise(rng, 0.3)
    echo: Array = np.where(y > gland_top + edge, gland, fat)
    echo = blur(echo, 3)
    behind = step(gland_bottom + edge - y, 0.04)
    echo = paint(echo, behind, fat - 0.03)
    deep = gland_bottom + rng.uniform(0.16, 0.26)
    echo = paint(echo, step(deep - y, 0.02), muscle)
    echo = echo + 0.26 * bump(y - deep, 0.022)  # fascia
    pleura = deep + rng.uniform(0.32, 0.42)
    echo = echo + 0.3 * bump(y - pleura, 0.025) - 0.2 * step(pleura - y, 0.05)
    skin = canvas.y + 0.1 * wave
    echo = echo + 0.45 * (bump(skin + 0.97, 0.025) + bump(skin + 0.87, 0.018))
    echo = echo + 0.1 * step(skin + 0.87, 0.02)
    return echo


def _mass(canvas: Canvas, echo: Array, rng: np.random.Generator, name: str) -> Array:
    center = (rng.uniform(-0.45, 0.45), rng.uniform(-0.3, 0.12))
    if name == "malignant mass":  # as tall as wide, ragged, with a halo, spicules and a shadow
        radii = (rng.uniform(0.13, 0.24), rng.uniform(0.15, 0.26))
        body = canvas.blob(rng, center, radii, rng.uniform(0.12, 0.26), 0.04)
        halo = canvas.blob(rng, center, (radii[0] + 0.07, radii[1] + 0.06), 0.2, 0.07) * (1 - body)
        (x, y), (rx, ry) = center, radii
        spicules = []
        for angle in rng.uniform(0, 2 * math.pi, 12).tolist():
            cos, sin = math.cos(angle), math.sin(angle)
            reach = (0.7, rng.uniform(1.25, 1.7))
            ends = [(x + r * rx * cos, y + r * ry * sin) for r in reach]
            spicules.append(Stroke(ends, rng.uniform(0.015, 0.035)))
        body = np.maximum(body, canvas.strokes(spicules, 0.012))
        behind = _behind(canvas, center, radii, 0.85)
        echo = echo * (1 - rng.uniform(0.35, 0.8) * behind)
        echo = echo + 0.1 * halo
        inside = rng.uniform(0.12, 0.2) + 0.04 * canvas.noise(rng, 0.07)
        return paint(echo, body, inside)
    radii = (rng.uniform(0.17, 0.34), rng.uniform(0.1, 0.17))
    cyst = name == "cyst"
    if cyst:
        radii = (rng.uniform(0.15, 0.26), rng.uniform(0.13, 0.2))
    tilt = rng.uniform(-0.2, 0.2)
    rho = canvas.rho(center, radii, tilt)
    body = step((rho - 1) * radii[1], 0.02)
    enhancement = rng.uniform(0.16, 0.24) if cyst else rng.uniform(0.05, 0.17)
    echo = echo + enhancement * _behind(canvas, center, radii, 0.8)
    # Sound is refracted at the smooth flanks: two thin shadows.
    for s in (-1, 1):
        flank = (center[0] + s * radii[0], center[1])
        echo = echo - 0.08 * _behind(canvas, flank, (0.03, 0.03), 0.8)
    grain = 0.0 if cyst else 0.02 * canvas.noise(rng, 0.08)
    echo = paint(echo, body, (-0.12 if cyst else rng.uniform(0.17, 0.26)) + grain)
    return echo + 0.12 * bump((rho - 1.06) * radii[1], 0.016)


def _behind(canvas: Canvas, center: Point, radii: Point, width: float) -> Array:
    """The band under a mass, where its attenuation shows."""
    across = step(np.abs(canvas.x - center[0]) - (radii[0] * width), 0.08)
    return across * step((center[1] + 0.3 * radii[1]) - canvas.y, 0.08)


def _speckle(canvas: Canvas, rng: np.random.Generator) -> Array:
    """Log-compressed Rayleigh speckle of unit scale and zero mean.

    The envelope of many scatterers' echoes is Rayleigh distributed; display is logarithmic.
    Grains are wider than deep, as the beam is wider than the pulse is long.
    """
    shape = (canvas.height, canvas.width)
    real, imaginary = noise(rng, shape, 2.6, 1.5), noise(rng, shape, 2.6, 1.5)
    log: Array = np.log(real * real + imaginary * imaginary + 1e-2)
    log = (log - log.mean()) / log.std()
    return log


def _furniture(image: Array) -> Array:
    """The display around the sector: depth ticks and a grey wedge."""
    height, width = image.shape
    image = image.copy()
    for tick in range(1, 8):
        row = round(height * tick / 8)
        image[row : row + 1, width - 5 : width - 1] = 0.6
    top, bottom = round(height * 0.08), round(height * 0.4)
    image[top:bottom, 2:6] = np.linspace(1, 0, bottom - top, dtype=np.float32)[:, None]
    return image
