"""Names of the files of explanations, and the page that links them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence

from annotator.pipeline import Annotation
from annotator.render.html import document, text

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")
_LONGEST = 100


def file_name(image_id: str) -> str:
    """An image's id as the beginning of a file name: itself where it can be, else with a hash."""
    safe = _UNSAFE.sub("_", image_id)[:_LONGEST]
    if safe == image_id and safe and safe[0] not in ".-" and safe != "index":
        return safe
    digest = hashlib.sha256(image_id.encode("utf-8", "backslashreplace")).hexdigest()[:8]
    return f"{safe.lstrip('.-') or 'image'}-{digest}"


def contents(annotations: Sequence[Annotation], names: Mapping[str, str]) -> str:
    """A page that links those of many images; those that could not be used come with the reason."""
    rows = []
    for annotation in annotations:
        id_ = text(annotation.image_id)
        if annotation.error is not None:
            rows.append(
                f'<tr><td>{id_}</td><td colspan="2" class="muted">{text(annotation.error)}</td>'
                "</tr>"
            )
            continue
        concepts = ", ".join(names.get(cui, "") or cui for cui in annotation.cuis)
        rows.append(
            f'<tr><td><a href="{file_name(annotation.image_id)}.html">{id_}</a></td>'
            f'<td class="number">{annotation.expected_f1:.2f}</td><td>{text(concepts)}</td></tr>'
        )
    body = (
        f"<h1>{len(annotations)} images and their concepts</h1>"
        '<p class="muted">Not for clinical use.</p>'
        '<table><thead><tr><th>Image</th><th class="number">Expected F1</th><th>Concepts</th></tr>'
        f"</thead>{''.join(rows)}</table>"
    )
    return document("Explanations", body)
