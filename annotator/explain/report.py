"""HTML pages and JSON of explanations."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from annotator.annotation import Annotation
from annotator.explain.attribution import AttributionMap
from annotator.explain.deletion import Deletion
from annotator.explain.explain import Explanation
from annotator.explain.figure import OPPOSING, SUPPORTING, overlay, to_jpeg, to_png
from annotator.render.html import render_page
from annotator.render.thumbnails import Thumbnails

_DECIMALS = 8  # of numbers in JSON: sums are accurate to 1e-5
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")
_LONGEST = 100


def explanation_page(
    explanation: Explanation,
    names: Mapping[str, str],
    thumbnails: Thumbnails,
    *,
    neighbors: int,
) -> str:
    """Render the explanation of one image as HTML.

    Args:
        explanation: Explanation of the image.
        names: Name by CUI, where known.
        thumbnails: Thumbnails of the index.
        neighbors: Maximum number of cases shown.
    """
    voters = [n for n in explanation.annotation.neighbors if n.weight > 0]
    shown = [n.image_id for n in voters[:neighbors]]
    pictures = {id_: jpeg for id_ in shown if (jpeg := thumbnails(id_))}
    return render_page(
        "explain.html",
        explanation=explanation,
        names=names,
        neighbors=neighbors,
        voters=voters,
        image=to_jpeg(explanation.picture),
        pictures=pictures,
        classes={id_: f"c{i}" for i, id_ in enumerate(pictures)},
        overlay_png=lambda map_: to_png(overlay(map_)),
        colours={"supporting": SUPPORTING, "opposing": OPPOSING},
    )


def contents_page(annotations: Sequence[Annotation], names: Mapping[str, str]) -> str:
    """Render a contents page with links to the pages of images, and errors of failed ones."""
    return render_page(
        "explanations.html", annotations=annotations, names=names, file_name=file_name
    )


def to_dict(explanation: Explanation, names: Mapping[str, str]) -> dict[str, Any]:
    """Plain JSON types of the numbers of a page and the cells of its heatmaps."""
    annotation = explanation.annotation
    return {
        **annotation.to_dict(names, explain=True),
        "method": explanation.method,
        "frames": explanation.frames,
        "explanations": [
            {
                "cui": concept.cui,
                "cases_with": concept.cases_with,
                "cases_without": concept.cases_without,
                "contrast": None if concept.contrast is None else _map_dict(concept.contrast),
                "deletion": None if concept.deletion is None else _deletion_dict(concept.deletion),
            }
            for concept in explanation.concepts
        ],
    }


def file_name(image_id: str) -> str:
    """Stem of a file name for an image id: the id itself if it is safe, else with a hash."""
    safe = _UNSAFE.sub("_", image_id)[:_LONGEST]
    if safe == image_id and safe and safe[0] not in ".-" and safe != "index":
        return safe
    digest = hashlib.sha256(image_id.encode("utf-8", "backslashreplace")).hexdigest()[:8]
    return f"{safe.lstrip('.-') or 'image'}-{digest}"


def _map_dict(map_: AttributionMap) -> dict[str, Any]:
    return {
        "total": round(map_.total, _DECIMALS),
        "picture": round(float(map_.grid.sum()), _DECIMALS),
        "background": round(map_.background, _DECIMALS),
        "elsewhere": round(map_.elsewhere, _DECIMALS),
        "constant": round(map_.constant, _DECIMALS),
        "rest": round(map_.rest, _DECIMALS),
        "grid": map_.grid.round(_DECIMALS).tolist(),
    }


def _deletion_dict(deletion: Deletion) -> dict[str, Any]:
    return {
        "highest": round(deletion.highest, _DECIMALS),
        "random_mean": round(deletion.mean, _DECIMALS),
        "random_upper_quartile": round(deletion.upper_quartile, _DECIMALS),
        "tells": deletion.tells,
    }
