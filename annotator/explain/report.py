"""An explanation as one page and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from annotator.explain.attribution import Heat
from annotator.explain.explain import Concept, Explanation, Method
from annotator.explain.overlay import AGAINST, FOR, layer, png
from annotator.knn.neighbors import Case
from annotator.render.html import data_uri, document, text

_DECIMALS = 8  # of figures in JSON: their sums are right to 1e-5
_MOST_OTHERS = 3  # of a neighbour's further concepts
_METHODS: dict[Method, str] = {
    "exact": "exact: the parts of all positions add up to the whole",
    "patches": "approximate, from the patches' tokens",
    "occlusion": "approximate, by occlusion",
}
_STYLE = f"""
.head {{ display: grid; grid-template-columns: minmax(12rem, 22rem) 1fr; gap: 1.5rem; }}
@media (max-width: 44rem) {{ .head {{ grid-template-columns: 1fr; }} }}
.view {{ position: relative; width: 100%; background-size: 100% 100%; background-color: #000;
  border-radius: .25rem; overflow: hidden; }}
.view img {{ position: absolute; inset: 0; width: 100%; height: 100%; background: none; }}
.view:hover img {{ opacity: 0; }}
.card h2 {{ margin: 0; }}
.why {{ display: flex; flex-wrap: wrap; gap: 1.25rem; }}
.large {{ flex: 0 1 16rem; max-width: none; }}
.small {{ flex: 0 1 10rem; }}
.who {{ flex: 1 1 22rem; }}
.case {{ width: 7.25rem; }}
td code, th.number {{ white-space: nowrap; }}
figcaption {{ margin-top: .25rem; }}
.case .view {{ background-size: contain; background-repeat: no-repeat;
  background-position: center; aspect-ratio: 1; }}
.bar {{ width: 8rem; max-width: 20vw; height: .5rem; margin-top: .5rem; border-radius: .25rem;
  background: var(--track); }}
.bar i {{ display: block; height: 100%; background: var(--fill); border-radius: .25rem; }}
.key {{ display: inline-block; width: .875rem; height: .875rem; border-radius: .125rem;
  vertical-align: -.125rem; }}
.for {{ background: rgb{FOR}; }} .against {{ background: rgb{AGAINST}; }}
.note {{ background: var(--warning); padding: .5rem .75rem; border-radius: .25rem; }}
* {{ print-color-adjust: exact; }}
"""


def page(
    explanation: Explanation,
    names: Mapping[str, str],
    pictures: Mapping[str, bytes],
    *,
    neighbors: int,
    picture: bytes,
) -> str:
    """The explanation of one image as a page that is one file.

    Args:
        explanation: Of the image.
        names: Names of CUIs.
        pictures: Small JPEGs of the neighbours that are shown, by id; b"" where there is none.
        neighbors: Most neighbours shown for a concept.
        picture: The image as a JPEG.
    """
    annotation = explanation.annotation
    # Each picture is in the page once, however often it is shown.
    width, height = explanation.picture.size
    classes = {id_: f"c{i}" for i, id_ in enumerate(sorted(pictures)) if pictures[id_]}
    style = _STYLE + (
        f".own {{ aspect-ratio: {width} / {height}; background-image: url({data_uri(picture)}) }}\n"
        + "".join(
            f".{name} {{ background-image: url({data_uri(pictures[id_])}) }}\n"
            for id_, name in classes.items()
        )
    )
    familiarity = (
        ""
        if annotation.familiarity is None
        else f" Familiarity {annotation.familiarity:.2f}: so many of the index's own images are "
        "less similar to their nearest case than this one."
    )
    frames = (
        ""
        if explanation.frames == 1
        else f" The middle one of {explanation.frames} frames is shown."
    )
    body = [
        f"<h1>{text(annotation.image_id)}</h1>",
        f'<p class="muted">Why the index gives this image these concepts. Expected F1 '
        f"{annotation.expected_f1:.2f}.{familiarity}{frames}</p>",
        '<p class="note">Not for clinical use.</p>',
        '<div class="head"><div>',
        _view("own", f"the image {annotation.image_id}"),
        "</div><div>",
        _overview(explanation.concepts, names),
        "</div></div>",
        _how_to_read(explanation.method),
    ]
    for concept in explanation.concepts:
        body.append(_section(concept, explanation, names, classes, neighbors))
    return document(f"Why: {annotation.image_id}", "\n".join(body), style=style)


def to_dict(explanation: Explanation, names: Mapping[str, str]) -> dict[str, Any]:
    """The figures of the page, and the cells of its heatmaps, as plain JSON types."""
    annotation = explanation.annotation
    return {
        **annotation.to_dict(names, explain=True),
        "method": explanation.method,
        "exact": explanation.method == "exact",
        "frames": explanation.frames,
        "explanations": [
            {
                "cui": concept.cui,
                "cases_with": concept.cases_with,
                "cases_without": concept.cases_without,
                "contrast": _heat(concept.contrast),
                "vote": _heat(concept.vote),
            }
            for concept in explanation.concepts
        ],
    }


def shown(explanation: Explanation, neighbors: int) -> list[str]:
    """Ids of the neighbours that the page shows, sorted."""
    return sorted({n.image_id for c in explanation.concepts for n in c.voters[:neighbors]})


def _heat(heat: Heat) -> dict[str, Any]:
    return {
        "total": round(heat.total, _DECIMALS),
        "picture": round(float(heat.grid.sum()), _DECIMALS),
        "elsewhere": round(heat.elsewhere, _DECIMALS),
        "constant": round(heat.constant, _DECIMALS),
        "rest": round(heat.rest, _DECIMALS),
        "grid": heat.grid.round(_DECIMALS).tolist(),
    }


def _overview(concepts: tuple[Concept, ...], names: Mapping[str, str]) -> str:
    if not concepts:
        return "<p>No concept was chosen: the neighbours that voted have none, or all others.</p>"
    rows = "".join(
        f'<tr><td><a href="#{text(c.cui)}">{text(names.get(c.cui, "") or c.cui)}</a></td>'
        f"<td><code>{text(c.cui)}</code></td>"
        f'<td class="number">{c.score:.2f}</td>'
        f'<td><div class="bar"><i style="width:{100 * c.score:.1f}%"></i></div></td></tr>'
        for c in concepts
    )
    return (
        "<table><thead><tr><th>Concept</th><th>CUI</th>"
        f'<th class="number">Score</th><th>Share of the vote</th></tr></thead>{rows}</table>'
    )


def _how_to_read(method: Method) -> str:
    ways = {
        "exact": "The encoder averages over positions, so each similarity is a sum over them, and "
        "what a position adds is also its Shapley value in that sum.",
        "patches": "The encoder is a transformer: each patch's last token was put in the place of "
        "the whole. What patches tell each other by attention is not seen.",
        "occlusion": "Each place was covered in turn with the picture's mean, and colour shows by "
        "how much the similarity then fell. The parts do not add up to the whole.",
    }
    return (
        '<h2>How to read it</h2><p><i class="key for"></i> speaks for the concept, '
        '<i class="key against"></i> against it; the deeper, the more, relative to the strongest '
        "place of that heatmap. Point at a heatmap to see what is under it.</p>"
        "<p><strong>What tells it apart</strong> is the mean similarity to the nearest cases with "
        "the concept, less that to the nearest without it. <strong>The vote</strong> is the "
        "similarity to the neighbours that voted for it, each times its weight. "
        f"Heatmaps are <strong>{_METHODS[method]}</strong>. {ways[method]}</p>"
    )


def _section(
    concept: Concept,
    explanation: Explanation,
    names: Mapping[str, str],
    classes: Mapping[str, str],
    neighbors: int,
) -> str:
    name = names.get(concept.cui, "")
    without = (
        f"the {concept.cases_with} nearest cases with it, against the "
        f"{concept.cases_without} nearest without it"
        if concept.cases_without
        else f"the {concept.cases_with} nearest cases with it; all that are near have it"
    )
    cases = concept.voters[:neighbors]
    more = concept.voters[neighbors:]
    rest = (
        f'<p class="muted">and {len(more)} more with {sum(n.weight for n in more):.1%} '
        "of the vote</p>"
        if more
        else ""
    )
    return "\n".join(
        [
            f'<section class="card" id="{text(concept.cui)}">',
            f"<h2>{text(name or concept.cui)} <code>{text(concept.cui)}</code></h2>",
            f"<p>{concept.score:.1%} of the vote, from {len(concept.voters)} neighbours.</p>",
            '<div class="why">',
            _heatmap(concept.contrast, "large", "What tells it apart", without, explanation.method),
            _heatmap(
                concept.vote,
                "small",
                "The vote",
                f"{len(concept.voters)} neighbours by weight",
                explanation.method,
            ),
            '<div class="who"><h3>Who voted for it</h3><div class="row">',
            *(_case(neighbor, concept.cui, names, classes) for neighbor in cases),
            f"</div>{rest}</div></div></section>",
        ]
    )


def _heatmap(heat: Heat, size: str, title: str, of: str, method: Method) -> str:
    if method == "occlusion":
        sum_ = f"{heat.total:+.3f}; covering one place takes up to {heat.grid.max():+.3f}"
    else:
        sum_ = (
            f"{heat.total:+.3f} = picture {heat.grid.sum():+.3f}, padding and other frames "
            f"{heat.elsewhere:+.3f}, constant {heat.constant:+.3f}"
        )
        if method == "patches":
            sum_ += f", not explained {heat.rest:+.3f}"
    alt = f"heatmap, {title.lower()}"
    return (
        f'<figure class="{size}">{_view("own", alt, png(layer(heat)))}'
        f"<figcaption><strong>{title}</strong>: {text(of)}<br>{sum_}</figcaption></figure>"
    )


def _view(class_: str, alt: str, over: bytes = b"") -> str:
    image = f'<img src="{data_uri(over, "image/png")}" alt="">' if over else ""
    return f'<div class="view {class_}" role="img" aria-label="{text(alt)}">{image}</div>'


def _case(neighbor: Case, cui: str, names: Mapping[str, str], classes: Mapping[str, str]) -> str:
    class_ = classes.get(neighbor.image_id)
    view = (
        _view(class_, f"the case {neighbor.image_id}")
        if class_
        else '<p class="muted">no picture</p>'
    )
    others = [names.get(c, "") or c for c in neighbor.cuis if c != cui]
    also = ", ".join(others[:_MOST_OTHERS]) + (", …" if len(others) > _MOST_OTHERS else "")
    return (
        f'<figure class="case">{view}<figcaption><strong>{text(neighbor.image_id)}</strong><br>'
        f"weight {neighbor.weight:.1%}<br>similarity {neighbor.similarity:.3f}"
        f"{'<br>also ' + text(also) if also else ''}</figcaption></figure>"
    )
