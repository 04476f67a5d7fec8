"""Encoders fitted to a collection, from a folder that `annotator fit-encoder` wrote."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from torch import Tensor

from annotator.encoders.branches import new_branch, trained, with_branches
from annotator.encoders.embedder import Encoder
from annotator.encoders.fingerprint import FITTED_BRANCHES, Fingerprint, weights_digest
from annotator.encoders.fitted import Fitted
from annotator.encoders.recognise import FITTED_FORMAT, read_config
from annotator.encoders.weights import read_weights
from annotator.errors import AnnotatorError

VERSION = 2
CONFIG, WEIGHTS = "config.json", "model.safetensors"
ARRAYS = ("head.weights", "head.biases", "contents", "folds")  # beside the branches' tensors


def make_fitted(rest: str, load: Callable[[str], Encoder]) -> Encoder:
    """`FOLDER`, as `annotator fit-encoder` writes it.

    Args:
        rest: The folder.
        load: Loads the encoder that was fitted, by its name.

    Raises:
        AnnotatorError: There is no such folder, it is damaged or of a newer version, or the
            encoder that was fitted cannot be loaded or is another one now.
    """
    folder = Path(rest)
    config = read_config(folder)
    if config.get("format") != FITTED_FORMAT:
        raise AnnotatorError(
            f"{folder} is no fitted encoder: it has no {CONFIG} that says so.",
            "Fit one: annotator fit-encoder IMAGES CONCEPTS --out FOLDER.",
        )
    if config.get("version") != VERSION:
        raise AnnotatorError(
            f"{folder} is a fitted encoder of version {config.get('version')}; this is for "
            f"version {VERSION}.",
            "Fit it again, or use the version of annotator that wrote it.",
        )
    tensors = read_weights(folder / WEIGHTS)
    try:
        name, freeze = str(config["base"]["name"]), float(config["freeze"])
        recorded = Fingerprint.from_dict(config["base"]["fingerprint"])
        concepts = tuple(map(str, config["concepts"]))
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(folder, CONFIG) from error
    encoder = load(name)
    changed = base_fingerprint(encoder, recorded.dim).differences(recorded)
    if changed:
        raise AnnotatorError(
            f"{folder} was fitted to another {name} than is there now: {'; '.join(changed)}.",
            "Bring back the encoder that was fitted, or fit again.",
        )
    fitted = _fitted(folder, tensors, concepts, recorded.dim)
    branches = [new_branch(encoder.model, freeze) for _ in fitted.columns]
    parameters = {
        branch_key(k, key): parameter
        for k, branch in enumerate(branches)
        for key, parameter in trained(branch).items()
    }
    # All of them, and no others: those of a branch that was cut elsewhere would fit in part.
    if {*parameters, *ARRAYS} != set(tensors):
        raise _damaged(folder, WEIGHTS)
    for key, parameter in parameters.items():
        if tensors[key].shape != parameter.shape:
            raise _damaged(folder, WEIGHTS)
        parameter.data.copy_(tensors[key])
    lengths = [end - start for start, end in fitted.columns]
    return Encoder(
        with_branches(encoder.model, branches),
        encoder.preprocess,
        f"{encoder.architecture}, {len(branches)} {FITTED_BRANCHES}",
        (*(encoder.blocks or (recorded.dim,)), *lengths),
        crop_pct=encoder.crop_pct,
        fitted=fitted,
    )


def base_fingerprint(encoder: Encoder, dim: int) -> Fingerprint:
    """The fingerprint of an encoder before it is fitted, whatever the precision that it runs in.

    Args:
        encoder: As it was loaded.
        dim: Length of its vectors.
    """
    weights, preprocess = weights_digest(encoder.model), encoder.preprocess.to_dict()
    return Fingerprint(encoder.architecture, weights, preprocess, "fp32", "middle", dim)


def branch_key(branch: int, parameter: str) -> str:
    """Name of a branch's tensor in the file of weights."""
    return f"branches.{branch}.{parameter}"


def _fitted(
    folder: Path, tensors: Mapping[str, Tensor], concepts: tuple[str, ...], dim: int
) -> Fitted:
    """What the file of weights says beside the branches."""
    try:
        weights, biases, contents, folds = (tensors[key].numpy() for key in ARRAYS)
    except KeyError as error:
        raise _damaged(folder, WEIGHTS) from error
    if weights.ndim != 3 or contents.dtype != np.uint8:
        raise _damaged(folder, WEIGHTS)
    length = weights.shape[1]
    starts = [dim + k * length for k in range(len(weights))]
    columns = tuple((start, start + length) for start in starts)
    try:
        return Fitted(columns, concepts, weights, biases, contents, folds)
    except ValueError as error:
        raise _damaged(folder, WEIGHTS) from error


def _damaged(folder: Path, file: str) -> AnnotatorError:
    return AnnotatorError(
        f"{folder / file} is damaged, or of another fit.",
        "Copy the whole folder again, or fit again.",
    )
