"""Fingerprints of encoders: vectors of equal fingerprints are comparable."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from annotator.errors import AnnotatorError

_OWN = "own"  # instead of a digest of weights
FITTED_BRANCHES = "fitted branches"  # in the architecture of a fitted encoder

if TYPE_CHECKING:
    from torch import nn


@dataclasses.dataclass(frozen=True)
class Fingerprint:
    """Everything that shapes an encoder's vectors; two equal ones give comparable vectors.

    Attributes:
        architecture: The network, such as "timm tf_efficientnet_lite0".
        weights: "sha256:…" of its tensors, by name; "own" for an encoder of the user's, of which
            only the vectors are known.
        preprocess: Size, resizing, interpolation, mean, std and the version of decoding; kept as
            plain JSON types, so that a fingerprint read from a file equals the one written.
        precision: "fp32" or "bf16".
        frames: Which frames of a multi-frame image are used: "middle" or "all" (their mean).
        dim: Length of the vectors.
    """

    architecture: str
    weights: str
    preprocess: Mapping[str, Any]
    precision: str
    frames: str
    dim: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "preprocess", json.loads(json.dumps(dict(self.preprocess))))

    @functools.cached_property
    def digest(self) -> str:
        """sha256 of the fields, 64 hex digits: the key under which vectors are cached."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()

    @property
    def asked_precision(self) -> Literal["fp32", "bf16"]:
        """The precision that gives this one: of several encoders, one may have only its own."""
        return "bf16" if "bf16" in self.precision else "fp32"

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Fingerprint:
        """The reverse of `to_dict`; unknown fields are ignored.

        Raises:
            AnnotatorError: A field is missing.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        missing = [name for name in names if name not in fields]
        if missing:
            raise AnnotatorError(
                f"The encoder's fingerprint lacks {', '.join(missing)}.",
                "It was written by another version: build the index again.",
            )
        return cls(**{name: fields[name] for name in names})

    @classmethod
    def of_own(cls, name: str, dim: int) -> Fingerprint:
        """The fingerprint of an encoder of the user's, whose vectors are known by its name."""
        return cls(name, _OWN, {}, "fp32", "middle", dim)

    @classmethod
    def joined(cls, parts: Sequence[Fingerprint]) -> Fingerprint:
        """That of encoders whose vectors stand side by side, with the frames of the first."""
        weights = " ".join(part.weights for part in parts)
        return cls(
            architecture=" + ".join(part.architecture for part in parts),
            weights=f"sha256:{hashlib.sha256(weights.encode()).hexdigest()}",
            preprocess={str(i): dict(part.preprocess) for i, part in enumerate(parts)},
            precision=" + ".join(dict.fromkeys(part.precision for part in parts)),
            frames=parts[0].frames,
            dim=sum(part.dim for part in parts),
        )

    @property
    def is_fitted(self) -> bool:
        """Whether it is that of an encoder that was fitted to labelled images."""
        return FITTED_BRANCHES in self.architecture

    @property
    def is_own(self) -> bool:
        """Whether it is that of an encoder of the user's, which we cannot run."""
        return self.weights == _OWN

    def differences(self, other: Fingerprint) -> list[str]:
        """One line for each field in which the two differ, "field: mine, not theirs"."""
        mine, theirs = _flat(self.to_dict()), _flat(other.to_dict())
        return [
            f"{key}: {mine.get(key)}, not {theirs.get(key)}"
            for key in sorted(mine.keys() | theirs.keys())
            if mine.get(key) != theirs.get(key)
        ]


def weights_digest(model: nn.Module) -> str:
    """ "sha256:…" over names, shapes, dtypes and bytes of all tensors of `model`."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        # As bytes, because numpy has no bfloat16.
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy())
    return f"sha256:{digest.hexdigest()}"


def _flat(fields: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in fields.items():
        if isinstance(value, Mapping):
            flat.update({f"{key}.{inner}": v for inner, v in value.items()})
        else:
            flat[key] = value
    return flat
