"""Statistics of a labelled collection: concept frequencies and concepts unseen in training.

Follows analyses by participants of ImageCLEF 2019: the tail of rare concepts, and concepts of the
validation side that never occur in training.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

from annotator.concepts.types import SemanticTypes
from annotator.errors import FormatError
from annotator.render.plots import check_plot, plotted
from annotator.render.text_table import Row, columns, section

RARE = 4  # concepts on fewer images than this are rare ...
FREQUENT = 1000  # ... and on more than this frequent
TOP = 20
SIZES = 15  # lines of the histogram in the text

_INK = "#2f6f9f"
_SHADE = "#e8edf2"


@dataclass(frozen=True)
class ConceptCount:
    """A concept with its number of images."""

    cui: str
    name: str
    images: int


@dataclass(frozen=True)
class TypeCount:
    """A semantic type with its numbers of concepts, images and annotations."""

    tui: str
    name: str
    concepts: int
    images: int
    annotations: int


@dataclass(frozen=True)
class Unseen:
    """Concepts of the validation side that do not occur in training.

    Attributes:
        share: Share of validation annotations (pairs of image and CUI), in [0, 1].
        concepts: Unseen concepts with their number of validation images, most frequent first.
    """

    share: float
    concepts: tuple[ConceptCount, ...]


@dataclass(frozen=True)
class Stats:
    """Statistics of a collection's concepts.

    Attributes:
        images: Number of images.
        images_without: Number of images without concepts.
        annotations: Number of pairs of image and CUI.
        mean, median, max: CUIs per image, over all images; 0 without images.
        per_image: Number of images by number of CUIs, ascending.
        concepts: Each concept with its number of images, the most frequent first.
        frequencies: Number of concepts by number of images, ascending.
        rare: Number of concepts on fewer than 4 images.
        frequent: Number of concepts on more than 1,000 images.
        unseen: The concepts of validation that training lacks, or None without validation.
        per_type: Semantic types, those of most images first; None where they are not known. A
            concept may have several.
    """

    images: int
    images_without: int
    annotations: int
    mean: float
    median: float
    max: int
    per_image: dict[int, int]
    concepts: tuple[ConceptCount, ...]
    frequencies: dict[int, int]
    rare: int
    frequent: int
    unseen: Unseen | None
    per_type: tuple[TypeCount, ...] | None = None

    @property
    def top(self) -> tuple[ConceptCount, ...]:
        """The twenty most frequent concepts."""
        return self.concepts[:TOP]

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "top": [asdict(concept) for concept in self.top]}


def explore(
    concepts: Mapping[str, Sequence[str]],
    names: Mapping[str, str] | None = None,
    validation: Mapping[str, Sequence[str]] | None = None,
    types: SemanticTypes | None = None,
) -> Stats:
    """Describe the concepts of a collection.

    Args:
        concepts: Concept ids by image id, from `annotator.tables.labels.read_labels`.
        names: Name by CUI, where known.
        validation: CUIs by image id of the validation side, for comparison.
        types: Semantic types of the concepts, to count by them.
    """
    names = names or {}
    counts = _count(concepts)
    sizes = [len(set(cuis)) for cuis in concepts.values()]
    return Stats(
        images=len(concepts),
        images_without=sizes.count(0),
        annotations=sum(sizes),
        mean=float(mean(sizes)) if sizes else 0.0,
        median=float(median(sizes)) if sizes else 0.0,
        max=max(sizes, default=0),
        per_image=dict(sorted(Counter(sizes).items())),
        concepts=_rank(counts, names),
        frequencies=dict(sorted(Counter(counts.values()).items())),
        rare=sum(count < RARE for count in counts.values()),
        frequent=sum(count > FREQUENT for count in counts.values()),
        unseen=None if validation is None else _find_unseen(counts, names, validation),
        per_type=None if types is None else _count_types(concepts, counts, types),
    )


def render_stats(stats: Stats) -> str:
    """Render statistics as text for the terminal, without a trailing line end."""
    total = len(stats.concepts)
    lines = [
        f"{stats.images:,} images, {stats.images_without:,} of them without concepts",
        f"{total:,} concepts, {stats.annotations:,} annotations",
        f"CUIs per image: mean {stats.mean:.2f}, median {stats.median:g}, at most {stats.max:,}",
        f"Concepts on fewer than {RARE} images: {stats.rare:,}{_percent(stats.rare, total)}",
        f"Concepts on more than {FREQUENT:,} images: {stats.frequent:,}"
        f"{_percent(stats.frequent, total)}",
    ]
    lines += section(
        "CUIs per image",
        columns(["CUIs", "images", "share"], _shares(stats)),
    )
    lines += section(
        f"The {len(stats.top)} most frequent concepts",
        columns(
            ["CUI", "name", "images", "share"],
            [[c.cui, c.name, c.images, c.images / stats.images] for c in stats.top],
        ),
    )
    if stats.per_type is not None:
        rows: list[Row] = [
            [t.tui, t.name, t.concepts, t.images, t.annotations] for t in stats.per_type
        ]
        header = ["type", "name", "concepts", "images", "annotations"]
        lines += section(
            f"Semantic types: {len(rows):,}", columns(header, rows) if rows else ["none"]
        )
    if stats.unseen is not None:
        unseen = stats.unseen.concepts
        lines += section(
            f"Concepts of validation that training lacks: {len(unseen):,}, "
            f"{stats.unseen.share:.1%} of its annotations",
            columns(["CUI", "name", "images"], [[c.cui, c.name, c.images] for c in unseen[:TOP]])
            if unseen
            else [],
        )
    return "\n".join(lines)


def plot_stats(stats: Stats, path: Path | str) -> None:
    """Plot concept frequency by rank (log-log) and the histogram of CUIs per image.

    The output is reproducible, byte for byte, with the same version of matplotlib.

    Args:
        stats: From `explore`, with at least one concept.
        path: Output file: `.png`, `.svg` or `.pdf`.

    Raises:
        FormatError: There are no concepts, or the extension is unsupported.
    """
    check_plot(path)
    if not stats.concepts:
        raise FormatError("no image has a concept, so there is nothing to draw")
    with plotted(path, (11, 4.2)) as figure:
        left, right = figure.subplots(1, 2)
        for axes in (left, right):
            axes.spines[["top", "right"]].set_visible(False)
        _draw_frequencies(left, stats)
        _draw_sizes(right, stats)


def _draw_frequencies(axes: Any, stats: Stats) -> None:
    counts = [concept.images for concept in stats.concepts]
    axes.loglog(range(1, len(counts) + 1), counts, ".", color=_INK, markersize=4)
    top = max(counts[0], FREQUENT) * 2
    axes.axhspan(0.7, RARE - 0.5, color=_SHADE, linewidth=0)
    axes.axhspan(FREQUENT, top, color=_SHADE, linewidth=0)
    # The curve falls from the upper left to the lower right: the other two corners are free.
    across = axes.get_yaxis_transform()
    rare = f"{stats.rare:,} concepts on fewer than {RARE} images"
    axes.text(0.02, 0.85, rare, transform=across, ha="left", va="bottom")
    frequent = f"{stats.frequent:,} concepts on more than {FREQUENT:,} images"
    axes.text(0.98, FREQUENT * 1.1, frequent, transform=across, ha="right", va="bottom")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:,.0f}")
    axes.set(
        title="Frequency of concepts",
        xlabel="rank of the concept",
        ylabel="images with the concept",
        ylim=(0.7, top),
    )


def _draw_sizes(axes: Any, stats: Stats) -> None:
    axes.bar(list(stats.per_image), list(stats.per_image.values()), color=_INK, width=0.85)
    axes.axvline(stats.mean, color="black", linewidth=1, linestyle="--")
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set(
        title=f"CUIs per image (dashed: the mean, {stats.mean:.2f})",
        xlabel="CUIs of an image",
        ylabel="images",
    )


def _count(concepts: Mapping[str, Sequence[str]]) -> Counter[str]:
    return Counter(cui for cuis in concepts.values() for cui in set(cuis))


def _rank(counts: Mapping[str, int], names: Mapping[str, str]) -> tuple[ConceptCount, ...]:
    cuis = sorted(counts, key=lambda cui: (-counts[cui], cui))
    return tuple(ConceptCount(cui, names.get(cui, ""), counts[cui]) for cui in cuis)


def _count_types(
    concepts: Mapping[str, Sequence[str]], counts: Mapping[str, int], types: SemanticTypes
) -> tuple[TypeCount, ...]:
    images = Counter(
        tui
        for cuis in concepts.values()
        for tui in {tui for cui in cuis for tui in types.of.get(cui, ())}
    )
    found = [
        TypeCount(tui, types.names[tui], len(cuis), images[tui], sum(counts[cui] for cui in cuis))
        for tui, cuis in types.by_type(counts).items()
    ]
    return tuple(sorted(found, key=lambda count: (-count.images, count.tui)))


def _find_unseen(
    counts: Mapping[str, int], names: Mapping[str, str], validation: Mapping[str, Sequence[str]]
) -> Unseen:
    found = _count(validation)
    unseen = {cui: count for cui, count in found.items() if cui not in counts}
    share = sum(unseen.values()) / found.total() if found else 0.0
    return Unseen(share, _rank(unseen, names))


def _shares(stats: Stats) -> list[Row]:
    sizes = list(stats.per_image.items())
    counts = [(f"{size}", count) for size, count in sizes[:SIZES]]
    if sizes[SIZES:]:
        counts.append((f"{sizes[SIZES][0]}+", sum(count for _, count in sizes[SIZES:])))
    return [[label, count, count / stats.images] for label, count in counts]


def _percent(part: int, whole: int) -> str:
    return f" ({part / whole:.1%})" if whole else ""
