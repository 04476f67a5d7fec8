"""`Annotation` and `Annotations`: the answer for images, as values, tables, text and HTML."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, overload

from annotator.errors import ImageError
from annotator.images.notes import NOTES, Note
from annotator.knn.familiarity import UNFAMILIAR
from annotator.knn.neighbors import Case
from annotator.render.thumbnails import Thumbnails

if TYPE_CHECKING:
    import pandas as pd

    from annotator.knn.guarantees import Guaranteed

_MOST_CONCEPTS = 5  # in a repr
_MOST_LETTERS = 40  # of a name in a repr
_MOST_LINES = 10  # of the repr of a list
_MOST_SHOWN = 20  # images of a list in HTML
_MOST_CASES = 6  # in HTML


def _no_thumbnail(image_id: str) -> bytes:
    return b""


def _no_picture() -> bytes:
    return b""


@dataclass(frozen=True)
class Look:
    """What people see of an annotation beside its values.

    Attributes:
        names: Name by concept, where known.
        thumbnails: Thumbnails of the cases.
        picture: Returns a JPEG of the annotated image; b"" if there is none.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    thumbnails: Thumbnails = _no_thumbnail
    picture: Callable[[], bytes] = _no_picture


@dataclass(frozen=True, repr=False)
class Annotation:
    """Predicted concepts of one image, with the supporting cases.

    In a notebook it shows the image, its concepts, and the cases behind them.

    Attributes:
        image_id: Image id.
        cuis: Predicted concepts, highest score first.
        scores: Share of the neighbours' votes for each concept, 0..1.
        expected_f1: Expected F1 of the predicted set, 0..1; calibrated if there are probabilities,
            else that of the votes.
        familiarity: How like the images of the index this one is, 0..1: the share of the index's
            images that are less like their own nearest cases of other patients, for how alike cases
            are there (`annotator.knn.familiarity`). Near 0, the image is out of distribution. None
            if the index was not tuned.
        neighbors: Neighbours that voted, most similar first.
        error: Why the image could not be used (then the rest is empty, but for the familiarity of
            one that is too unfamiliar), or None.
        notes: What was done to the picture that its file did not ask for, as stable codes.
        votes: Score of every concept that got a vote, chosen or not; empty unless asked for.
        considered: Concepts that were voted for and not chosen, with their share of the votes,
            highest first: those with a share of 0.1 at least, at most 10.
        rivals: By chosen concept that is in doubt, one that excludes it, as the labels of the index
            show, and still has a quarter of the votes or more (`annotator.knn.rivals`).
        same_image: Id of a case that is this very image (its similarity is 1), or None.
        probabilities: Probability that each concept is right, 0..1, calibrated on the images of the
            index; None if the index has no calibration of this vote.
        considered_probabilities: Likewise, of the concepts in `considered`.
        guarantee: What the set was chosen to keep on average; None without a guarantee.
        hierarchical: Whether concepts were chosen over a hierarchy: scores count the votes for what
            is below a concept, and `expected_f1` is hierarchical.
        look: Names and pictures.
    """

    image_id: str
    cuis: tuple[str, ...]
    scores: tuple[float, ...]
    expected_f1: float
    neighbors: tuple[Case, ...]
    familiarity: float | None = None
    error: ImageError | None = None
    notes: tuple[Note, ...] = ()
    votes: Mapping[str, float] = field(default_factory=dict)
    considered: Mapping[str, float] = field(default_factory=dict)
    rivals: Mapping[str, str] = field(default_factory=dict)
    same_image: str | None = None
    probabilities: tuple[float, ...] | None = None
    considered_probabilities: tuple[float, ...] | None = None
    guarantee: Guaranteed | None = None
    hierarchical: bool = False
    look: Look = field(default_factory=Look, compare=False)

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each concept in `cuis`; "" where it is not known."""
        return tuple(self.look.names.get(cui, "") for cui in self.cuis)

    @property
    def each(self) -> list[tuple[str, str, float, float | None]]:
        """Each concept with its name (or ""), score and probability (or None)."""
        probabilities = _each(self.probabilities, len(self.cuis))
        return list(zip(self.cuis, self.names, self.scores, probabilities, strict=True))

    @property
    def is_unfamiliar(self) -> bool:
        """Whether the image is unlike those of the index, so that its concepts are guesses."""
        return self.familiarity is not None and self.familiarity < UNFAMILIAR

    def to_dict(
        self, names: Mapping[str, str] | None = None, *, explain: bool = False
    ) -> dict[str, Any]:
        """Plain JSON types, with concept names; includes the neighbours if `explain`.

        Args:
            names: Name by concept; None for those of the index.
            explain: Whether to include the neighbours.
        """
        names = self.look.names if names is None else names
        fields: dict[str, Any] = {
            "id": self.image_id,
            "concepts": [
                {
                    "cui": cui,
                    "name": names.get(cui, ""),
                    "score": round(score, 6),
                    "probability": None if probability is None else round(probability, 6),
                    "rival": self.rivals.get(cui),
                }
                for cui, _, score, probability in self.each
            ],
            "considered": [
                {
                    "cui": cui,
                    "name": names.get(cui, ""),
                    "score": round(score, 6),
                    "probability": None if probability is None else round(probability, 6),
                }
                for (cui, score), probability in zip(
                    self.considered.items(),
                    _each(self.considered_probabilities, len(self.considered)),
                    strict=True,
                )
            ],
            "expected_f1": round(self.expected_f1, 6),
            "familiarity": None if self.familiarity is None else round(self.familiarity, 4),
            "same_image": self.same_image,
        }
        if self.guarantee is not None:
            fields["guarantee"] = self.guarantee.to_dict()
        if self.hierarchical:
            fields["hierarchical"] = True
        if explain:
            fields["neighbors"] = [
                {
                    "id": n.image_id,
                    "similarity": round(n.similarity, 6),
                    "weight": round(n.weight, 6),
                    "cuis": list(n.cuis),
                    "inferred": list(n.inferred),
                    "caption": n.caption,
                }
                for n in self.neighbors
            ]
        if self.notes:
            fields["notes"] = list(self.notes)
        if self.error is not None:
            fields["error"] = self.error.message
        return fields

    def share(self, concept: str) -> float:
        """Share of the votes of a concept that was chosen or considered; 0 for others."""
        chosen = dict(zip(self.cuis, self.scores, strict=True))
        return chosen.get(concept, self.considered.get(concept, 0.0))

    def to_frame(self) -> pd.DataFrame:
        """As `Annotations.to_frame`."""
        return Annotations([self]).to_frame()

    def __repr__(self) -> str:
        if self.error is not None:
            return f"Annotation({self.image_id!r}, error: {_one_line(self.error.message)})"
        shown = [
            f"{_one_line(name or cui)} {score:.2f}"
            for name, cui, score in zip(self.names, self.cuis, self.scores, strict=True)
        ]
        if len(shown) > _MOST_CONCEPTS:
            shown[_MOST_CONCEPTS:] = [f"and {len(shown) - _MOST_CONCEPTS} more"]
        return f"Annotation({self.image_id!r}, {', '.join(shown) or 'no concepts'})"

    def _repr_html_(self) -> str:
        return Annotations([self])._repr_html_()

    def __getstate__(self) -> dict[str, Any]:
        """What is copied and pickled: of the look, the names of the concepts that occur."""
        shown = (*self.cuis, *self.considered)
        of_cases = (cui for case in self.neighbors for cui in (*case.cuis, *case.inferred))
        occurring = {*shown, *of_cases}
        names = {cui: name for cui, name in self.look.names.items() if cui in occurring}
        return self.__dict__ | {"look": Look(names)}


class Annotations(Sequence[Annotation]):
    """The annotations of a list of images, in its order.

    In a notebook it shows them as a list; a slice is such a list, too.

    Args:
        annotations: One of each image.
    """

    def __init__(self, annotations: Iterable[Annotation]) -> None:
        self._all = tuple(annotations)

    @overload
    def __getitem__(self, at: int) -> Annotation: ...
    @overload
    def __getitem__(self, at: slice) -> Annotations: ...
    def __getitem__(self, at: int | slice) -> Annotation | Annotations:
        return Annotations(self._all[at]) if isinstance(at, slice) else self._all[at]

    def __len__(self) -> int:
        return len(self._all)

    def __eq__(self, other: object) -> bool:
        return self._all == other._all if isinstance(other, Annotations) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def to_frame(self) -> pd.DataFrame:
        """A table with one row a concept of an image.

        The columns are image_id, concept, name ("" where it is not known), score, probability
        (missing where the index has no calibration of this vote) and error. An image without
        concepts has one row, whose concept, name and numbers are missing; its error says why, if it
        could not be used.
        """
        import pandas as pd

        rows: list[tuple[str | float | None, ...]] = []
        for a in self._all:
            error = a.error.message if a.error is not None else None
            rows += ((a.image_id, *concept, error) for concept in a.each)
            if not a.cuis:
                rows.append((a.image_id, None, None, None, None, error))
        columns = ["image_id", "concept", "name", "score", "probability", "error"]
        frame = pd.DataFrame(rows, columns=columns, dtype=object)
        return frame.astype({"score": float, "probability": float})

    def to_run(self, year: str = "2026") -> str:
        """A run in the format of a year of ImageCLEFmedical Caption; failed images have no concept.

        Raises:
            FormatError: As `annotator.tables.run.render_run`, such as for an id that is repeated.
        """
        from annotator.tables.run import render_run

        return render_run(((a.image_id, a.cuis) for a in self._all), year)

    def __repr__(self) -> str:
        shown = [f"  {annotation!r}" for annotation in self._all[:_MOST_LINES]]
        if len(self) > len(shown):
            shown.append(f"  and {len(self) - len(shown)} more")
        return "\n".join([f"Annotations of {self._counted()}", *shown])

    def _counted(self) -> str:
        failed = sum(annotation.error is not None for annotation in self._all)
        images = f"{len(self)} image{'s' if len(self) != 1 else ''}"
        return f"{images}, of which {failed} cannot be used" if failed else images

    def _repr_html_(self) -> str:
        from annotator.render.html import render_page

        return render_page(
            "annotations.html",
            annotations=self._all[:_MOST_SHOWN],
            counted=self._counted(),
            more=max(0, len(self) - _MOST_SHOWN),
            alone=len(self) == 1,
            most_cases=_MOST_CASES,
            notes=NOTES,
        )


def with_picture(annotation: Annotation, picture: Callable[[], bytes]) -> Annotation:
    """The same annotation with a picture, a JPEG, to show."""
    return replace(annotation, look=replace(annotation.look, picture=picture))


def _each(probabilities: tuple[float, ...] | None, n: int) -> tuple[float | None, ...]:
    """The probability of each of n concepts; None where there is none."""
    return (None,) * n if probabilities is None else probabilities


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MOST_LETTERS else f"{line[: _MOST_LETTERS - 1]}…"
