"""Encoders as OpenVINO's graphs, kept on disk by fingerprint: what ran once needs no torch again.

A file is whole or not at all, and has a checksum: a damaged one counts as absent, and is written
again. Deleting the folder costs one conversion of each encoder.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotator.encoders.fingerprint import Fingerprint
from annotator.encoders.fitted import Fitted
from annotator.encoders.preprocess import DECODER_VERSION
from annotator.errors import AnnotatorError
from annotator.files import whole_file

_CACHE = "annotator/encoders"
_VERSION = "1"  # raised when what is converted, or how it is kept, changes


@dataclass(frozen=True)
class Converted:
    """An encoder as a graph that OpenVINO reads, with what else an `Embedder` has to know.

    The graph takes uint8[n, size, size, 3] and gives float32[n, dim].

    Attributes:
        fingerprint: Of the encoder.
        blocks: As `Embedder.blocks`.
        network: The graph, XML.
        weights: uint8[bytes], its constants.
        fitted: As `Embedder.fitted`.
    """

    fingerprint: Fingerprint
    blocks: tuple[int, ...]
    network: bytes
    weights: NDArray[np.uint8]
    fitted: Fitted | None = None


def folder() -> Path:
    """Where converted encoders are kept: below $ANNOTATOR_CACHE, or else in the user's cache.

    Raises:
        OSError: There is no place for it.
    """
    if own := os.environ.get("ANNOTATOR_CACHE"):
        return Path(own) / "encoders"
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", _CACHE)
    except RuntimeError as error:
        raise FileNotFoundError("the user has no home") from error


def keep(converted: Converted) -> bool:
    """Keep a converted encoder for the next time; returns whether it could be written."""
    from safetensors.numpy import save_file

    tensors: dict[str, NDArray[Any]] = {
        "network": np.frombuffer(converted.network, np.uint8),
        "weights": converted.weights,
        **(converted.fitted.to_arrays() if converted.fitted else {}),
    }
    about = {
        "version": _VERSION,
        "fingerprint": json.dumps(converted.fingerprint.to_dict(), sort_keys=True),
        "blocks": json.dumps(converted.blocks),
    }
    try:
        path = _path(converted.fingerprint)
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as temporary:
            save_file(tensors, temporary, {**about, "checksum": _checksum(tensors, about)})
    except OSError:  # a disk that is full or read-only: it is converted again next time
        return False
    return True


def kept(fingerprint: Fingerprint) -> Converted | None:
    """The converted encoder with this fingerprint; None if there is none, or it is damaged."""
    from safetensors import SafetensorError, safe_open

    if fingerprint.preprocess.get("decoder") != DECODER_VERSION:
        return None  # its pixels are none that are decoded here
    try:
        with safe_open(_path(fingerprint), framework="np") as file:
            about = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        checksum = about.pop("checksum", "")
        if about.get("version") != _VERSION or checksum != _checksum(tensors, about):
            return None
        recorded = Fingerprint.from_dict(json.loads(about["fingerprint"]))
        if replace(recorded, frames=fingerprint.frames) != fingerprint:
            return None
        return Converted(
            fingerprint,
            tuple(json.loads(about["blocks"])),
            tensors["network"].tobytes(),
            tensors["weights"],
            Fitted.from_arrays(tensors),
        )
    except (OSError, SafetensorError, AnnotatorError, ValueError, KeyError):
        return None


def keep_parts(parts: Sequence[Fingerprint]) -> bool:
    """Keep which encoders have a joint fingerprint; returns whether it could be written.

    The joint one holds a digest of the weights alone, from which those of the parts do not follow.
    """
    try:
        path = _path(Fingerprint.joined(parts), "json")
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as temporary:
            fields = [replace(part, frames="middle").to_dict() for part in parts]
            temporary.write_text(json.dumps(fields, sort_keys=True), encoding="utf-8")
    except OSError:
        return False
    return True


def kept_parts(fingerprint: Fingerprint) -> list[Fingerprint]:
    """The fingerprints of the parts of a joint one; none if they are not kept, or damaged."""
    try:
        fields = json.loads(_path(fingerprint, "json").read_text(encoding="utf-8"))
        parts = [replace(Fingerprint.from_dict(f), frames=fingerprint.frames) for f in fields]
        return parts if parts and Fingerprint.joined(parts) == fingerprint else []
    except (OSError, AnnotatorError, ValueError, TypeError, AttributeError):
        return []


def _path(fingerprint: Fingerprint, kind: str = "safetensors") -> Path:
    """Which frames are used is no matter of the network."""
    return folder() / f"{replace(fingerprint, frames='middle').digest}.{kind}"


def _checksum(tensors: Mapping[str, NDArray[Any]], about: Mapping[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(dict(about), sort_keys=True).encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(tensors[name]).view(np.uint8).data)
    return digest.hexdigest()
