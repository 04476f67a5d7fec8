"""A map as a page that is one file: the points can be looked at one by one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from annotator.map.colour import REST as NONE
from annotator.map.make import Map
from annotator.map.style import EDGE, MARKS, REST, Mark
from annotator.render.html import document, text

_FILES = Path(__file__).parent


def map_page(drawn: Map, pictures: Sequence[str] = ()) -> str:
    """A map as HTML.

    Args:
        drawn: The map.
        pictures: Of each point, as `read_pictures` gives them; empty for a page without.
    """
    data = json.dumps(_data(drawn, pictures), separators=(",", ":"))
    data = data.replace("<", "\\u003c")  # so that no text ends the script
    colouring = drawn.colouring
    fitted = (
        " The vectors were fitted to the concepts, so the map shows images of the same concepts "
        "nearer to each other than they look."
        if drawn.points.fitted
        else ""
    )
    body = f"""<header>
<h1>Map of {text(drawn.title)}</h1>
<p class="muted">{text(drawn.counted)}, near each other where their vectors are alike.{fitted}
Not for clinical use.</p>
</header>
<noscript><p>This page needs JavaScript, which is in it; nothing is fetched.</p></noscript>
<main>
<section class="card plot" aria-label="Map">
<canvas id="map" tabindex="0" role="application" aria-describedby="keys"
 aria-label="Map of {text(drawn.counted)}"></canvas>
<div class="below">
<p class="muted small">→&nbsp;{text(drawn.layout.axes[0])} · ↑&nbsp;{text(drawn.layout.axes[1])}</p>
<div class="tools">
<button type="button" id="nearer" aria-label="Zoom in">+</button>
<button type="button" id="farther" aria-label="Zoom out">−</button>
<button type="button" id="whole">Whole map</button>
</div>
</div>
<div id="point" class="card" aria-live="polite" hidden></div>
</section>
<aside class="card">
<h2>By {text(colouring.by)}</h2>
<ul id="legend"></ul>
<p class="muted small">{text(colouring.rule)} Choose one to hide or show it.</p>
<label for="find">Find</label>
<input type="search" id="find" autocomplete="off" placeholder="id, concept, caption">
<p id="found" class="muted small" aria-live="polite"></p>
</aside>
</main>
<p class="muted small" id="keys">Click or tap a point to keep it shown. Wheel or + and − zoom, drag
moves the map; arrow keys go from point to point, Escape lets go, 0 shows the whole map.</p>
<script type="application/json" id="data">{data}</script>"""
    return document(
        f"Map of {drawn.title}",
        body,
        style=(_FILES / "page.css").read_text(encoding="utf-8"),
        script=(_FILES / "page.js").read_text(encoding="utf-8"),
    )


def _data(drawn: Map, pictures: Sequence[str]) -> dict[str, Any]:
    """What the script draws, as JSON types."""
    points, colouring = drawn.points, drawn.colouring
    positions = drawn.layout.positions
    span = float(np.ptp(positions, axis=0).max()) or 1.0
    places = ((positions - positions.min(axis=0)) / span).round(5)
    labels = points.labels
    legend = [
        {"label": category.label or category.cui, "cui": category.cui if category.label else "",
         "points": category.points, "held": category.held, **_mark(mark)}
        for category, mark in zip(colouring.categories, MARKS, strict=False)
    ]  # fmt: skip
    rest = int(np.sum(colouring.of == NONE))
    legend.append({"label": colouring.rest, "cui": "", "points": rest, "held": rest, **_mark(REST)})
    return {
        "x": places[:, 0].tolist(),
        "y": places[:, 1].tolist(),
        "category": np.where(colouring.of == NONE, len(legend) - 1, colouring.of).tolist(),
        "legend": legend,
        "edge": EDGE,
        "by": colouring.by,
        "ids": points.ids,
        "concepts": [[cui, points.name(cui)] for cui in labels.cuis],
        "held": [
            labels.indices[start:end].tolist()
            for start, end in zip(labels.indptr[:-1], labels.indptr[1:], strict=True)
        ],
        "captions": points.texts("captions") or [],
        "groups": points.texts("groups") or [],
        "pictures": list(pictures),
    }


def _mark(mark: Mark) -> dict[str, Any]:
    return {"colours": [mark.colour, mark.dark], "form": mark.form}
