"""The folder of a fitted encoder, which is there whole or not at all, and the one it is made in."""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from annotator.encoders.fingerprint import Fingerprint
from annotator.encoders.fitted_encoder import ARRAYS, CONFIG, VERSION, WEIGHTS, branch_key
from annotator.encoders.recognise import FITTED_FORMAT, read_config
from annotator.errors import AnnotatorError
from annotator.files import whole_file
from annotator.fitting.recipe import Recipe
from annotator.fitting.train import TrainedBranch
from index.sync import sync

_KEY, _LOCK, _RESULT, _REPLACED = "key.json", "lock", "result", "replaced"


@dataclass(frozen=True)
class FitRecord:
    """What an encoder was fitted to, and how.

    Attributes:
        base: The name of the encoder that was fitted.
        fingerprint: Its fingerprint.
        recipe: How it was trained.
        seed: All that is random comes from it.
        flip: Whether mirror images were among the augmented copies.
        concepts: Those that the heads were trained on.
        images: Number of images.
        contents: uint8[m, 16], of each image's file, sorted; the same file counts once.
        folds: int16[m]: the branch that has not seen the image's group; -1 if all have.
        groups: Number of groups.
        all_concepts: Number of concepts of the collection.
    """

    base: str
    fingerprint: Fingerprint
    recipe: Recipe
    seed: int
    flip: bool
    concepts: tuple[str, ...]
    images: int
    contents: NDArray[np.uint8]
    folds: NDArray[np.int16]
    groups: int
    all_concepts: int


def is_fitted(folder: Path) -> bool:
    """Whether a folder holds a fitted encoder."""
    return read_config(folder).get("format") == FITTED_FORMAT


def check_out(out: Path, *, overwrite: bool) -> None:
    """Check that an encoder may be written to `out`.

    Raises:
        AnnotatorError: There is something that must not, or cannot, be replaced.
    """
    if out.exists() and not overwrite:
        raise AnnotatorError(
            f"{out} exists already.", "Choose another --out, or replace it with --overwrite."
        )
    if out.exists() and not is_fitted(out):
        raise AnnotatorError(
            f"{out} is no fitted encoder, so --overwrite does not replace it.",
            "Choose another --out, or remove it yourself.",
        )


@contextlib.contextmanager
def working_folder(out: Path) -> Iterator[Path]:
    """The folder beside `out` that an interrupted fit goes on from, held for this process.

    It is deleted at the end of the block, if that succeeds.

    Raises:
        AnnotatorError: Another process fits an encoder there.
    """
    folder = out.with_name(f"{out.name}.partial")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise AnnotatorError(
                f"Another process is fitting {out}.", "Wait for it, or choose another --out."
            ) from error
        yield folder
        shutil.rmtree(folder)


def begin(folder: Path, key: Mapping[str, str]) -> list[str]:
    """Empty a working folder that belongs to another fit.

    Args:
        folder: From `working_folder`.
        key: Digest of all that the result depends on, by what it is of.

    Returns:
        What differs from the fit that was there; empty if there was none, or this one.

    Raises:
        AnnotatorError: It holds something, but no fit.
    """
    path = folder / _KEY
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        before = {}
    if before == key:
        return []
    others = [other for other in folder.iterdir() if other.name not in (_LOCK, _KEY)]
    if others and not before:
        raise AnnotatorError(
            f"{folder} is where the fit would be worked on, but holds something else, such as "
            f"{others[0].name}.",
            "Choose another --out, or remove it yourself.",
        )
    for other in others:
        if other.is_dir():
            shutil.rmtree(other)
        else:
            other.unlink()
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(dict(key)), encoding="utf-8")
    return [what for what in key if before and before.get(what) != key[what]]


def write_encoder(
    working: Path,
    out: Path,
    record: FitRecord,
    branches: Sequence[TrainedBranch],
    card: str,
    curves: bytes,
) -> None:
    """Write the folder of an encoder and publish it as `out`.

    Args:
        working: From `working_folder`.
        out: A fitted encoder there is replaced.
        record: What was fitted, to what and how.
        branches: The trained branches.
        card: Text of README.md.
        curves: The picture curves.png.
    """
    from safetensors.torch import save_file

    result = working / _RESULT
    if result.exists():
        shutil.rmtree(result)
    result.mkdir()
    tensors: dict[str, Tensor] = {
        branch_key(k, name): tensor.contiguous()
        for k, branch in enumerate(branches)
        for name, tensor in branch.tensors.items()
    }
    arrays = (
        torch.stack([branch.weights for branch in branches]),
        torch.stack([branch.biases for branch in branches]),
        torch.from_numpy(record.contents),
        torch.from_numpy(record.folds),
    )
    tensors |= dict(zip(ARRAYS, arrays, strict=True))
    save_file(tensors, result / WEIGHTS, {"format": "pt"})
    (result / WEIGHTS).chmod(0o644)
    config: dict[str, Any] = {
        "format": FITTED_FORMAT,
        "version": VERSION,
        "base": {"name": record.base, "fingerprint": record.fingerprint.to_dict()},
        "branches": len(branches),
        "freeze": record.recipe.freeze,
        "recipe": asdict(record.recipe),
        "flip": record.flip,
        "seed": record.seed,
        "concepts": record.concepts,
    }
    text = json.dumps(config, indent=1, ensure_ascii=False)
    (result / CONFIG).write_text(f"{text}\n", encoding="utf-8")
    (result / "README.md").write_text(card, encoding="utf-8")
    (result / "curves.png").write_bytes(curves)
    for path in (*result.iterdir(), result):
        sync(path)
    if out.exists():
        out.rename(working / _REPLACED)
    result.rename(out)
