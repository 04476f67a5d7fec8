"""Drift: whether new images differ from those of a reference, by what was annotated of both.

No concepts of the new images need be known. Numbers of each image (`SIGNALS`) are compared by the
Kolmogorov-Smirnov test, the shares of images with each concept by Fisher's exact test.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from annotator.errors import FormatError
from annotator.render.text_table import Row, columns, section
from annotator.tables.annotations import Annotated, read_annotations

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LEAST_IMAGES = 20  # of each side; the distribution of the statistic is that of larger samples
_TERMS = 100  # of a series whose terms vanish sooner
_EQUAL = 1e-7  # relative rounding of equally probable tables
_MOST_CONCEPTS = 10  # in the table of people

SIGNALS: Mapping[str, Callable[[Annotated], float | None]] = {
    "familiarity": lambda image: image.familiarity,
    "expected F1": lambda image: image.expected_f1,
    "concepts an image": lambda image: float(len(image.cuis)),
}


@dataclass(frozen=True)
class SignalDrift:
    """Comparison of a number that each image has.

    Attributes:
        signal: Its name, of `SIGNALS`.
        reference: Mean of the reference.
        new: Mean of the new images.
        distance: Kolmogorov-Smirnov statistic, 0..1: the largest distance between the two empirical
            distribution functions.
        p: p-value, adjusted for the number of signals.
    """

    signal: str
    reference: float
    new: float
    distance: float
    p: float


@dataclass(frozen=True)
class ConceptDrift:
    """Comparison of how many images have a concept.

    Attributes:
        cui: The concept.
        name: Its name; "" where it is not known.
        reference: Share of the reference's images that have it.
        new: Share of the new images.
        p: p-value, adjusted for the number of concepts.
    """

    cui: str
    name: str
    reference: float
    new: float
    p: float


@dataclass(frozen=True)
class Drift:
    """Comparison of new images with a reference.

    Attributes:
        alpha: Level of the tests, for the signals and for the concepts.
        reference: Number of images of the reference that were compared.
        new: Number of new images that were.
        signals: Of the signals that both have.
        concepts: Of all concepts of either, lowest p-value first.
    """

    alpha: float
    reference: int
    new: int
    signals: tuple[SignalDrift, ...]
    concepts: tuple[ConceptDrift, ...]

    @property
    def found(self) -> list[str]:
        """The signals and concepts that drifted."""
        drifted = [each.signal for each in self.signals if each.p <= self.alpha]
        return drifted + [each.cui for each in self.concepts if each.p <= self.alpha]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "drift": bool(self.found),
            "found": self.found,
            "alpha": self.alpha,
            "images": {"reference": self.reference, "new": self.new},
            "signals": [asdict(each) for each in self.signals],
            "concepts": [asdict(each) for each in self.concepts],
        }


def drift(reference: Path | str, new: Path | str, *, alpha: float = 0.01) -> Drift:
    """Compare new images with a reference.

    Images that could not be used are left out, and of the images of a patient or study (`annotate
    --groups`) all but the first: the tests hold for independent images.

    Args:
        reference: What `annotator annotate --format jsonl` wrote of the images that all was well
            with.
        new: What it wrote of new images.
        alpha: Level: the probability that some signal is said to have drifted where none has is at
            most this, and so is that of some concept.

    Raises:
        FormatError: A file is not such, or has fewer than 20 images to compare.
    """
    sides = [_independent(path) for path in (reference, new)]
    n, m = map(len, sides)
    signals = []
    for name, value in SIGNALS.items():
        values = [[v for image in side if (v := value(image)) is not None] for side in sides]
        if all(map(len, values)):
            distance, p = kolmogorov_smirnov(*values)
            before, now = (sum(each) / len(each) for each in values)
            signals.append(SignalDrift(name, before, now, distance, p))
    adjusted = holm([each.p for each in signals])
    counts = [Counter(cui for image in side for cui in set(image.cuis)) for side in sides]
    cuis = sorted(counts[0] | counts[1])
    pairs = [(counts[0][cui], counts[1][cui]) for cui in cuis]
    p_of = dict(zip(cuis, holm([fisher_exact(a, n, b, m) for a, b in pairs]), strict=True))
    names = {c: name for s in sides for i in s for c, name in zip(i.cuis, i.names, strict=True)}
    concepts = [
        ConceptDrift(cui, names[cui], a / n, b / m, p_of[cui])
        for cui, (a, b) in zip(cuis, pairs, strict=True)
    ]
    return Drift(
        alpha=alpha,
        reference=n,
        new=m,
        signals=tuple(replace(each, p=p) for each, p in zip(signals, adjusted, strict=True)),
        concepts=tuple(sorted(concepts, key=lambda c: (c.p, -abs(c.new - c.reference), c.cui))),
    )


def kolmogorov_smirnov(one: Sequence[float], other: Sequence[float]) -> tuple[float, float]:
    """Two-sample Kolmogorov-Smirnov test: the statistic, and its p-value.

    The p-value is that of Kolmogorov's limiting distribution with the correction of Stephens (1970,
    "Use of the Kolmogorov-Smirnov, Cramér-von Mises and related statistics without extensive
    tables", JRSS B 32) for the sizes of the samples: of two samples of 20, 0.008 where the exact
    value is 0.012, and closer with more. Ties make it too large.

    Args:
        one: At least one number.
        other: At least one number.
    """
    import numpy as np

    a, b = np.sort(np.asarray(one, np.float64)), np.sort(np.asarray(other, np.float64))
    both = np.concatenate([a, b])
    shares = (np.searchsorted(side, both, side="right") / len(side) for side in (a, b))
    distance = float(np.abs(next(shares) - next(shares)).max())
    root = np.sqrt(len(a) * len(b) / len(both))
    scaled = (root + 0.12 + 0.11 / root) * distance
    if scaled < 0.2:  # the series converges slowly, to 1 within 1e-12
        return distance, 1.0
    terms = np.arange(1, _TERMS + 1)
    signs = np.where(terms % 2, 2.0, -2.0)
    p = float((signs * np.exp(-2 * terms**2 * scaled**2)).sum())
    return distance, min(max(p, 0.0), 1.0)


def fisher_exact(a: int, n: int, b: int, m: int) -> float:
    """Fisher's exact test that two proportions are equal: the two-sided p-value.

    It is the sum of the probabilities of all tables with the same margins that are no more probable
    than this one (Fisher 1935, "The logic of inductive inference", JRSS 98).

    Args:
        a: Number that has something, of n.
        n: Size of the first sample, at least `a`.
        b: Number that has it, of m.
        m: Size of the second sample, at least `b`.
    """
    import numpy as np

    def log_choose(of: int, some: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.asarray(logs[of] - logs[some] - logs[of - some])

    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + m + 1)))])
    possible = np.arange(max(0, a + b - m), min(n, a + b) + 1)
    table = log_choose(n, possible) + log_choose(m, a + b - possible)
    odds = np.exp(table - table.max())
    here = odds[a - possible[0]]
    return min(float(odds[odds <= here * (1 + _EQUAL)].sum() / odds.sum()), 1.0)


def holm(p: Sequence[float]) -> list[float]:
    """Adjust p-values for their number, so that the family-wise error rate is bounded.

    Holm 1979, "A simple sequentially rejective multiple test procedure", Scand. J. Statist. 6.
    """
    order = sorted(range(len(p)), key=lambda i: p[i])
    adjusted, highest = [0.0] * len(p), 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min((len(p) - rank) * p[i], 1.0))
        adjusted[i] = highest
    return adjusted


def render_drift(found: Drift) -> str:
    """Render the comparison as text for people, with the ten concepts of the lowest p-values."""

    def mark(p: float) -> str:
        return "drift" if p <= found.alpha else ""

    lines = [f"{found.reference:,} images of the reference, {found.new:,} new ones"]
    rows: list[Row] = [
        [s.signal, s.reference, s.new, s.distance, s.p, mark(s.p)] for s in found.signals
    ]
    header = ["mean of", "reference", "new", "distance", "p", ""]
    lines += section("Signals (Kolmogorov-Smirnov)", columns(header, rows))
    shown = found.concepts[:_MOST_CONCEPTS]
    rows = [[c.cui, c.name, c.reference, c.new, c.p, mark(c.p)] for c in shown]
    header = ["share of", "name", "reference", "new", "p", ""]
    title = f"Concepts (Fisher's exact test), {len(shown)} of {len(found.concepts)}"
    lines += section(title, columns(header, rows) if rows else ["none"])
    return "\n".join(lines) + "\n"


def _independent(path: Path | str) -> list[Annotated]:
    """Usable images of a file, one of each group.

    Raises:
        FormatError: As `drift`.
    """
    usable = [image for image in read_annotations(path) if image.expected_f1 is not None]
    images = list(_first_of_each_group(usable))
    if len(images) < LEAST_IMAGES:
        raise FormatError(
            f"{path} has {len(images)} images to compare",
            f"At least {LEAST_IMAGES} are needed; images that could not be used do not count, and "
            "of the images of a patient or study only the first.",
        )
    return images


def _first_of_each_group(images: Iterable[Annotated]) -> Iterable[Annotated]:
    seen: set[str] = set()
    for image in images:
        if not image.group or image.group not in seen:
            seen.add(image.group)
            yield image
