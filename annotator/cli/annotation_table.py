"""Annotations as a person reads them: `annotator annotate --format table`."""

from __future__ import annotations

from collections.abc import Mapping

from annotator.annotation import Annotation
from annotator.concept_ids import is_cui
from annotator.images.notes import NOTES
from annotator.render.text_table import Row, columns, section


def annotation_lines(annotation: Annotation, names: Mapping[str, str]) -> list[str]:
    """Render an annotation as a titled block: its concepts with scores (and probabilities, where
    the index is calibrated), or why it has none.

    Args:
        annotation: Annotation of an image.
        names: Name by concept, where known.
    """
    error, familiarity = annotation.error, annotation.familiarity
    if error is not None:
        hint = f" {error.hint}" if error.hint else ""
        return section(annotation.image_id, [f"not used: {error.message}.{hint}"])
    title = annotation.image_id
    if familiarity is not None:
        title += f"  (familiarity {familiarity:.2f}"
        title += ": unlike the cases of the index)" if annotation.is_unfamiliar else ")"
    calibrated = annotation.probabilities is not None
    rows: list[Row] = []
    for concept, _, score, probability in annotation.each:
        numbers = [score] if probability is None else [score, probability]
        known = is_cui(concept)
        name = names.get(concept, "" if known else concept)
        rows.append([*numbers, name, concept if known else ""])
    last = "CUI" if any(map(is_cui, annotation.cuis)) else ""
    header = ["score", *(["probability"] if calibrated else []), "concept", last]
    lines = columns(header, rows, decimals=2, whole=last) if rows else ["no concepts"]

    def named(concept: str) -> str:
        return f"{names.get(concept) or concept} {annotation.share(concept):.2f}"

    lines += [
        f"in doubt: {named(concept)}; {named(rival)} excludes it"
        for concept, rival in annotation.rivals.items()
    ]
    if annotation.considered:
        lines.append(f"also considered: {', '.join(map(named, annotation.considered))}")
    if annotation.same_image is not None:
        lines.append(f"note: the index has this very image, as {annotation.same_image}")
    return section(title, [*lines, *(f"note: {NOTES[note]}" for note in annotation.notes)])
