"""What an index says of how it was built: the encoder and the voting, in its manifest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from annotator.embed.fingerprint import Fingerprint
from annotator.errors import AnnotatorError
from annotator.vote.voting import Voting
from index import StoredIndex


def to_record(
    embedder: str,
    fingerprint: Fingerprint,
    voting: Voting,
    tuning: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What a build leaves in `manifest["about"]`, as JSON types; `tuning` if voting was tuned."""
    return {
        "embedder": {"name": embedder, "fingerprint": fingerprint.to_dict()},
        "voting": asdict(voting),
        "tuning": tuning,
    }


def recorded_encoder(stored: StoredIndex) -> tuple[str, Fingerprint]:
    """Name and fingerprint of the encoder that an index was built with.

    Raises:
        AnnotatorError: The index records none.
    """
    try:
        embedder = stored.manifest["about"]["embedder"]
        return str(embedder["name"]), Fingerprint.from_dict(embedder["fingerprint"])
    except (KeyError, TypeError) as error:
        raise _not_recorded("encoder") from error


def recorded_voting(stored: StoredIndex) -> Voting:
    """The voting parameters that an index was built with.

    Raises:
        AnnotatorError: The index records none, or none that can be used.
    """
    try:
        return Voting(**stored.manifest["about"]["voting"])
    except (KeyError, TypeError, ValueError) as error:
        raise _not_recorded("voting parameters") from error


def _not_recorded(what: str) -> AnnotatorError:
    return AnnotatorError(
        f"The index does not say with which {what} it was built.",
        "`annotator build-index` did not write it, or another version did: build it again.",
    )
