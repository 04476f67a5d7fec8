"""What an index says of how it was built: the encoder and the voting, in its manifest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from annotator.encoders.fingerprint import Fingerprint
from annotator.errors import AnnotatorError
from annotator.knn.cross_validation import NeighborLists
from annotator.knn.voting import Voting
from index.protocols import Index

if TYPE_CHECKING:
    from annotator.encoders.embedder import Embedder


def to_record(
    embedder: str,
    fingerprint: Fingerprint,
    voting: Voting,
    *,
    adaptation: Mapping[str, Any] | None = None,
    tuning: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What a build leaves in `manifest["about"]`, as JSON types.

    Args:
        embedder: Name of the encoder.
        fingerprint: Of the encoder.
        voting: What annotates by default.
        adaptation: How the projection was chosen, if there is one.
        tuning: How `voting` was chosen, if it was.
    """
    return {
        "embedder": {"name": embedder, "fingerprint": fingerprint.to_dict()},
        "adaptation": adaptation,
        "voting": asdict(voting),
        "tuning": tuning,
    }


def with_tuning(
    about: Mapping[str, Any], voting: Voting, tuning: Mapping[str, Any]
) -> dict[str, Any]:
    """A record with other voting parameters."""
    return {**about, "voting": asdict(voting), "tuning": tuning}


def recorded_encoder(stored: Index) -> tuple[str, Fingerprint]:
    """Name and fingerprint of the encoder that an index was built with.

    Raises:
        AnnotatorError: The index records none.
    """
    try:
        embedder = stored.manifest["about"]["embedder"]
        return str(embedder["name"]), Fingerprint.from_dict(embedder["fingerprint"])
    except (KeyError, TypeError) as error:
        raise _not_recorded("encoder") from error


def recorded_voting(stored: Index) -> Voting:
    """The voting parameters that an index was built with.

    Raises:
        AnnotatorError: The index records none, or none that can be used.
    """
    try:
        return Voting(**stored.manifest["about"]["voting"])
    except (KeyError, TypeError, ValueError) as error:
        raise _not_recorded("voting parameters") from error


def recorded_nearest(stored: Index) -> NDArray[np.float64] | None:
    """float64[m], ascending: quantiles of how similar an image is to its nearest case of another
    patient, or None where the index was not tuned.
    """
    tuning = stored.manifest["about"].get("tuning")
    nearest = tuning.get("nearest") if isinstance(tuning, dict) else None
    if nearest is None:
        return None
    try:
        quantiles = np.asarray(nearest, np.float64)
    except (TypeError, ValueError) as error:
        raise _not_recorded("familiarity") from error
    if quantiles.ndim != 1 or len(quantiles) < 2 or not np.all(np.diff(quantiles) >= 0):
        raise _not_recorded("familiarity")
    return quantiles


def recorded_lists(stored: Index) -> NeighborLists | None:
    """The neighbour lists that tuning uses, by today's rows; None if the index keeps none.

    Raises:
        AnnotatorError: They do not fit the index.
    """
    manifest = stored.manifest
    if not manifest["segments"] and not manifest["removed"]:
        return NeighborLists.from_arrays(stored.arrays, len(stored))
    lists = NeighborLists.from_arrays(stored.arrays, len(stored) + manifest["removed"])
    return lists.renumbered(stored.renumber) if lists is not None else None


def check_encoder(embedder: Embedder, stored: Index) -> None:
    """Refuse an encoder whose vectors cannot be compared with the index's.

    Raises:
        AnnotatorError: It is another one; says what differs.
    """
    differences = embedder.fingerprint.differences(recorded_encoder(stored)[1])
    if differences:
        raise AnnotatorError(
            "The index was built with another encoder or other settings than "
            f"{embedder.name}: {'; '.join(differences)}.",
            "Leave out --embedder, --precision and --frames to use what the index records, "
            "or build the index again.",
        )


def _not_recorded(what: str) -> AnnotatorError:
    return AnnotatorError(
        f"The index does not say with which {what} it was built.",
        "`annotator build-index` did not write it, or another version did: build it again.",
    )
