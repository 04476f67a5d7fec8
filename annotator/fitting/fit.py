"""Fit an encoder to a labelled collection."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from annotator.collection import Collection
from annotator.encoders.branches import new_branch, trunk_of
from annotator.encoders.cache import content_key
from annotator.encoders.embedder import Encoder
from annotator.encoders.fingerprint import Fingerprint
from annotator.encoders.fitted import KEY_BYTES, SEEN_BY_ALL, common_folds
from annotator.encoders.fitted_encoder import base_fingerprint
from annotator.encoders.local_runner import default_workers
from annotator.encoders.preprocess import DECODER_VERSION
from annotator.encoders.registry import full_name, load_encoder, split_names
from annotator.encoders.torch_embedder import vector_length
from annotator.encoders.torch_setup import Device, choose_device
from annotator.errors import AnnotatorError, ImageError
from annotator.evaluation.measures import group_numbers
from annotator.fitting.augment import copies_of, has_sides
from annotator.fitting.card import draw_curves, held_out_f1, write_card
from annotator.fitting.folder import FitRecord, begin, check_out, working_folder, write_encoder
from annotator.fitting.maps import Trunk, make_maps
from annotator.fitting.recipe import ENCODER, Recipe
from annotator.fitting.train import Epoch, Examples, TrainedBranch, train_branch
from annotator.images.notes import Note
from annotator.images.ordered_map import ordered_map
from annotator.images.ref import ImageRef
from annotator.knn.cross_validation import group_folds
from index import LabelTable
from index.progress import track

LEAST_IMAGES = 20
_LEAST_OF_CONCEPT, _MOST_CONCEPTS = 2, 1000
_PARTS_OF_ONE = 5  # with one branch, a fifth is held out
_VERSION = 3  # of the training: what another one left half done is not gone on with


@dataclass(frozen=True)
class FittedEncoder:
    """Result of a fit.

    Attributes:
        folder: Of the encoder.
        images: Number of images that it was fitted to.
        concepts: Number of concepts that its heads were trained on.
        vote_f1: Mean F1 of the branches' votes on images that they have not seen.
        head_f1: Mean F1 of their heads on them.
        failed: Error by location of each image that could not be used.
        notes: By location, what was done to pictures that their files did not ask for.
        seconds: Time that it took.
    """

    folder: Path
    images: int
    concepts: int
    vote_f1: float
    head_f1: float
    failed: Mapping[str, ImageError]
    notes: Mapping[str, tuple[Note, ...]]
    seconds: float


def fit_encoder(
    collection: Collection,
    out: Path | str,
    name: str = ENCODER,
    *,
    recipe: Recipe | None = None,
    folds: int = 3,
    seed: int = 0,
    flip: bool | None = None,
    device: Device = "auto",
    workers: int | None = None,
    allow_blank: bool = False,
    overwrite: bool = False,
    tell: Callable[[str], None] = lambda line: None,
) -> FittedEncoder:
    """Fine-tune copies of an encoder's network on the concepts of a collection.

    Each of K branches is trained without one fold of the groups, so that every image has a branch
    that has not seen it; one more, for new images, is trained on all, for as many epochs as were
    best for these. With K = 1 there is one branch in all, which has not seen a fifth of the groups.

    What is done so far is kept in a folder beside `out`, from which an interrupted fit goes on to
    the same result; `out` appears at the end, whole.

    Args:
        collection: Images with concepts.
        out: Folder of the fitted encoder, for `make_embedder("fitted:FOLDER")`.
        name: Encoder, as for `make_embedder`; one whose network torch runs.
        recipe: How to train; None for the defaults.
        folds: K, the number of branches that do not see all images.
        seed: All that is random comes from it.
        flip: Show mirror images, too; None for only where no concept names a side.
        device: "auto" takes CUDA where there is one.
        workers: Number of threads that prepare images; None for the number of cores.
        allow_blank: Use images that are (nearly) constant, too.
        overwrite: Replace a fitted encoder at `out`.
        tell: Called with each line on how training goes.

    Raises:
        AnnotatorError: The encoder cannot be fitted, there are too few images or concepts, or
            `out` exists.
    """
    started, cpu_started = time.perf_counter(), time.process_time()
    out = Path(out)
    check_out(out, overwrite=overwrite)
    torch_device = choose_device(device)
    name, encoder, fingerprint = _load(name)
    recipe = recipe or Recipe()
    flip = not has_sides(_concepts(collection), collection.names) if flip is None else flip
    readable, contents, failed = _read_contents(collection.images, workers)
    _choose(collection, readable)
    _seen(_groups(collection, readable), folds, seed)
    trunk = Trunk(trunk_of(encoder.model), encoder.preprocess, torch_device)
    with working_folder(out) as working:
        key = _key(collection, readable, contents, fingerprint)
        key["settings"] = _digest([asdict(recipe), folds, seed, flip, _VERSION])
        if changed := begin(working, key):
            tell(f"Starting afresh: {working} was of other {', '.join(changed)}.")

        def make_copies(frame: Image.Image, ref: ImageRef) -> NDArray[np.uint8]:
            content = contents[ref.id]
            return copies_of(frame, content, encoder.preprocess, recipe, flip=flip, seed=seed)

        maps = make_maps(
            readable,
            trunk,
            make_copies,
            working,
            smallest_side=encoder.preprocess.smallest_side,
            workers=workers,
            allow_blank=allow_blank,
        )
        images = [readable[row] for row in maps.rows]
        concepts = _choose(collection, images)
        sets = [collection.concepts[ref.id] for ref in images]
        groups = _groups(collection, images)
        seen = _seen(groups, folds, seed)
        examples = Examples(maps, _labels(sets, concepts), LabelTable.from_sets(sets))
        branches: list[TrainedBranch] = []
        count = folds + (folds > 1)  # the last one sees all images
        telling = _Telling(count, recipe, tell)
        for k in range(count):
            branches.append(
                train_branch(
                    new_branch(encoder.model, recipe.freeze),
                    examples,
                    np.flatnonzero(seen != k),
                    np.flatnonzero(seen == k),
                    recipe,
                    seeds=(seed, k),
                    device=torch_device,
                    checkpoint=working / f"branch{k}.pt",
                    label=f"Branch {k + 1} of {count}",
                    on_epoch=lambda epoch, k=k: telling(k, epoch),  # type: ignore[misc]
                    stop=None if k < folds else _usual_epochs(branches),
                )
            )
        keys, known = _known([contents[ref.id] for ref in images], seen)
        record = FitRecord(
            name,
            fingerprint,
            recipe,
            seed,
            flip,
            concepts,
            len(images),
            keys,
            known,
            int(groups.max()) + 1,
            len(examples.concepts.cuis),
        )
        cost = (time.perf_counter() - started, time.process_time() - cpu_started)
        write_encoder(
            working,
            out,
            record,
            branches,
            write_card(record, branches, cost),
            draw_curves(branches),
        )
    vote, head = held_out_f1(branches)
    return FittedEncoder(
        out,
        len(images),
        len(concepts),
        vote,
        head,
        {**failed, **maps.failed},
        maps.notes,
        time.perf_counter() - started,
    )


def _load(name: str) -> tuple[str, Encoder, Fingerprint]:
    """The encoder's full name, itself and its fingerprint.

    Raises:
        AnnotatorError: It is none whose network can be trained here.
    """
    names = split_names(name)
    if len(names) > 1:
        raise AnnotatorError(
            f"{name} is several encoders; one is fitted at a time.",
            f"Fit {names[0]}, and join it afterwards: fitted:FOLDER+{'+'.join(names[1:])}.",
        )
    name = full_name(name)
    if name.startswith("fitted:"):
        raise AnnotatorError(
            f"{name} is fitted already.", "Fit the encoder that it was made of, to all images."
        )
    encoder = load_encoder(name)
    if encoder.runs_on is not None:  # not by torch
        raise AnnotatorError(
            f"{name} cannot be fitted: an ONNX file holds a network that only runs.",
            "Fit the network that it was exported from, by its name in timm, open_clip or "
            "transformers.",
        )
    side = encoder.preprocess.size
    dim = vector_length(name, encoder.model.eval(), torch.zeros(1, 3, side, side))
    return name, encoder, base_fingerprint(encoder, dim)


def _concepts(collection: Collection) -> list[str]:
    return sorted({concept for ids in collection.concepts.values() for concept in ids})


def _read_contents(
    images: Sequence[ImageRef], workers: int | None
) -> tuple[list[ImageRef], dict[str, bytes], dict[str, ImageError]]:
    """The images that can be read, the sha256 of each by its id, and the errors of the others."""

    def read(ref: ImageRef) -> bytes | ImageError:
        try:
            return content_key(ref.read())
        except ImageError as error:
            return error

    readable: list[ImageRef] = []
    contents: dict[str, bytes] = {}
    failed: dict[str, ImageError] = {}
    found = ordered_map(read, images, workers=workers or default_workers(images))
    for ref, content in zip(
        images, track(found, total=len(images), label="Reading images"), strict=True
    ):
        if isinstance(content, ImageError):
            failed[ref.where] = content
        else:
            readable.append(ref)
            contents[ref.id] = content
    return readable, contents, failed


def _choose(collection: Collection, images: Sequence[ImageRef]) -> tuple[str, ...]:
    """The concepts of the heads: the most frequent ones, of at least two images.

    Raises:
        AnnotatorError: There is none, or there are too few images.
    """
    if len(images) < LEAST_IMAGES:
        raise AnnotatorError(
            f"{len(images)} usable images are too few to fit an encoder to; it takes "
            f"{LEAST_IMAGES}, and hundreds to gain by it.",
            "Build the index with an encoder as it is.",
        )
    counts = Counter(concept for ref in images for concept in collection.concepts[ref.id])
    frequent = [c for c, count in counts.items() if count >= _LEAST_OF_CONCEPT]
    if not frequent:
        raise AnnotatorError(
            f"None of the {len(counts)} concepts has {_LEAST_OF_CONCEPT} images, so there is "
            "nothing to fit an encoder to.",
            "Check the labels, or build the index with an encoder as it is.",
        )
    frequent.sort(key=lambda concept: (-counts[concept], concept))
    return tuple(frequent[:_MOST_CONCEPTS])


def _groups(collection: Collection, images: Sequence[ImageRef]) -> NDArray[np.int64]:
    return group_numbers([collection.groups.get(ref.id, "") for ref in images])


def _labels(sets: Sequence[Sequence[str]], concepts: Sequence[str]) -> NDArray[np.bool_]:
    """bool[n, c]: which of the concepts each image has."""
    position = {concept: j for j, concept in enumerate(concepts)}
    labels = np.zeros((len(sets), len(concepts)), bool)
    for row, names in zip(labels, sets, strict=True):
        row[[position[name] for name in names if name in position]] = True
    return labels


def _seen(groups: NDArray[np.int64], folds: int, seed: int) -> NDArray[np.int16]:
    """The branch that does not see each image, int16[n]; -1 where the only one does.

    Args:
        groups: int64[n], from `group_numbers`.
        folds: Number of branches that do not see all.
        seed: Draws the folds.

    Raises:
        AnnotatorError: There are fewer groups than folds.
    """
    parts = folds if folds > 1 else _PARTS_OF_ONE
    count = int(groups.max()) + 1
    if count < parts:
        raise AnnotatorError(
            f"{count} groups cannot be split into {parts} folds.",
            "Give --groups that tell patients or studies apart, or use fewer --fit-folds.",
        )
    found = group_folds(groups, parts, seed)
    return np.where(found < folds, found, SEEN_BY_ALL).astype(np.int16)


def _usual_epochs(branches: Sequence[TrainedBranch]) -> int:
    """The median of the epochs that were best."""
    return int(np.ceil(np.median([branch.best.epoch for branch in branches])))


def _known(
    contents: Sequence[bytes], seen: NDArray[np.int16]
) -> tuple[NDArray[np.uint8], NDArray[np.int16]]:
    """What is kept of the images: their keys, sorted, and the branch that has not seen each.

    The same file under several ids has been seen by all branches, if its folds differ.
    """
    keys = np.stack([np.frombuffer(content[:KEY_BYTES], np.uint8) for content in contents])
    keys, inverse = np.unique(keys, axis=0, return_inverse=True)
    return keys, common_folds(inverse, seen).astype(np.int16)


def _key(
    collection: Collection,
    images: Sequence[ImageRef],
    contents: Mapping[str, bytes],
    fingerprint: Fingerprint,
) -> dict[str, str]:
    """Digests of what a fit depends on, by what they are of."""
    return {
        "images": _digest([DECODER_VERSION, *(contents[ref.id].hex() for ref in images)]),
        "labels": _digest([sorted(collection.concepts[ref.id]) for ref in images]),
        "groups": _digest([collection.groups.get(ref.id, "") for ref in images]),
        "encoder": fingerprint.digest,
    }


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


class _Telling:
    """A line on each epoch, with the time that is left if none of the branches stops early."""

    def __init__(self, count: int, recipe: Recipe, tell: Callable[[str], None]) -> None:
        self._count, self._epochs, self._tell = count, recipe.epochs, tell

    def __call__(self, branch: int, epoch: Epoch) -> None:
        left = (self._count - branch) * self._epochs - epoch.epoch
        seconds = left * epoch.seconds / epoch.epoch
        time_left = f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
        f1 = f"F1 {epoch.vote_f1:.4f} by the vote, {epoch.head_f1:.4f} by the head"
        held_out = "no image held out" if np.isnan(epoch.vote_f1) else f"held-out {f1}"
        self._tell(
            f"Branch {branch + 1} of {self._count}, epoch {epoch.epoch} of {self._epochs}: loss "
            f"{epoch.loss:.4f}, {held_out}; at most {time_left} left."
        )
