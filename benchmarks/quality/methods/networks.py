"""Fine-tuned classifiers: an encoder's network, trained as `annotator.fitting` trains its branches.

The same copies of the images go through the same part of the network that stays as it is, and the
same parameters are trained, as often and at the same learning rates, and averaged alike. Only, the
classifier reads the features as they come, as in most people's code, and nothing asks for
neighbours. All epochs run, on all training images; or as many as were best for a network that was
trained without a fold of the groups. What was made for one row is kept and charged to every row
that uses it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from annotator.encoders.branches import new_branch, trained, trunk_of
from annotator.encoders.cache import content_key
from annotator.encoders.registry import load_encoder
from annotator.encoders.torch_setup import choose_device
from annotator.errors import AnnotatorError
from annotator.fitting.augment import copies_of, has_sides
from annotator.fitting.loss import asymmetric
from annotator.fitting.maps import Maps, Trunk, make_maps
from annotator.fitting.recipe import Recipe
from annotator.images.ref import ImageRef
from benchmarks.quality.data import Data, digest, maybe_on_gpu
from benchmarks.quality.labels import Vocabulary, f1_of_rows, group_folds
from benchmarks.quality.methods.expected_f1 import expected_f1_sets
from index.progress import track

Floats = NDArray[np.float32]

FOLDS = 3
_VERSION = 4  # of the training: another one does not take what is kept

_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross-entropy": binary_cross_entropy_with_logits,
    "asymmetric": asymmetric,
}


class Networks:
    """The networks that a recipe makes of a training side.

    Args:
        folder: Where they are kept.
        encoder: The pretrained network, as for `load_encoder`.
        recipe: How they are trained.
        train: The training side; charged for what is used, whenever that was made.

    Attributes:
        vocabulary: c concepts of the side, in the order of all columns.
        truth: bool[n, c].
    """

    def __init__(self, folder: Path, encoder: str, recipe: Recipe, train: Data) -> None:
        self._folder, self._recipe, self._train = folder, recipe, train
        self.vocabulary = Vocabulary(train.labels)
        self.truth: NDArray[np.bool_] = self.vocabulary.matrix(train.labels).toarray() > 0
        self._flip = not has_sides(self.vocabulary.cuis, {})
        self._device = choose_device("auto")
        self._name, self._pretrained = encoder, load_encoder(encoder)
        preprocess = self._pretrained.preprocess
        self._trunk = Trunk(trunk_of(self._pretrained.model), preprocess, self._device)
        self._digest = digest(
            _VERSION, encoder, asdict(recipe), train.ids, [sorted(row) for row in train.labels]
        )

    def trained(self, seed: int, epochs: int | None = None) -> nn.Sequential:
        """A network that was trained on the whole side: inputs to logits float32[n, c].

        Args:
            seed: Of all that is random.
            epochs: After which it stops; None for all. The schedule is the same.
        """
        maps, rows = self._maps(self._train, self._recipe.copies), np.arange(len(self._train))
        stop = "" if epochs is None else f"-{epochs}"
        path = self._folder / f"finetuned-{self._digest}-{seed}{stop}.pt"

        def work() -> None:
            *_, model = self._epochs(maps, rows, seed, epochs)
            torch.save(model.state_dict(), path)

        self._train.once(path, work)
        model = self._network(maps, rows)
        model.load_state_dict(torch.load(path, map_location=self._device, weights_only=True))
        return model

    def best_epoch(self, seed: int) -> int:
        """The epoch of the highest F1 on a fold of the groups, which the network has not seen.

        Sets are those of the highest expected F1.
        """
        maps = self._maps(self._train, self._recipe.copies)
        path = self._folder / f"finetuned-{self._digest}-{seed}-epochs.npy"

        def work() -> None:
            fitted, held = next(iter(group_folds(self._train.groups, FOLDS)))
            f1 = []
            for model in self._epochs(maps, fitted, seed):
                chosen, _ = expected_f1_sets(self._predicted(model, maps, self._train.rows[held]))
                f1.append(f1_of_rows(self.truth[held], chosen).mean())
            np.save(path, np.array(f1))

        self._train.once(path, work)
        return int(np.load(path).argmax()) + 1

    def out_of_fold(self, seed: int) -> Floats:
        """float32[n, c]: probabilities by networks that have not seen an image's group."""
        maps = self._maps(self._train, self._recipe.copies)
        path = self._folder / f"finetuned-{self._digest}-{seed}-out-of-fold.npy"

        def work() -> None:
            found = np.zeros(self.truth.shape, np.float32)
            for fitted, held in group_folds(self._train.groups, FOLDS):
                *_, model = self._epochs(maps, fitted, seed)
                found[held] = self._predicted(model, maps, self._train.rows[held])
            np.save(path, found)

        self._train.once(path, work)
        return np.asarray(np.load(path))

    def probabilities(self, model: nn.Sequential, data: Data) -> Floats:
        """float32[m, c] of images, the mean of each and, if such were shown, its mirror image."""
        return self._predicted(model, self._maps(data, self._shown), data.rows)

    @property
    def _shown(self) -> int:
        """Copies of an image that a prediction is the mean of."""
        return 2 if self._flip else 1

    def _predicted(self, model: nn.Sequential, maps: Maps, rows: NDArray[np.int64]) -> Floats:
        found, step = [], self._recipe.batch_size
        with torch.inference_mode(), maybe_on_gpu():
            for some in (rows[i : i + step] for i in range(0, len(rows), step)):
                copies = [np.full(len(some), copy) for copy in range(self._shown)]
                chances = [torch.sigmoid(model(maps.read(some, copy)).float()) for copy in copies]
                found.append(torch.stack(chances).mean(dim=0).cpu().numpy())
        return np.concatenate(found)

    def _epochs(
        self, maps: Maps, rows: NDArray[np.int64], seed: int, stop: int | None = None
    ) -> Iterator[nn.Sequential]:
        """A network after each epoch on some of the side's images; a seed gives the same one."""
        recipe, rng = self._recipe, np.random.default_rng(seed)
        loss_of, step = _LOSSES[recipe.loss], recipe.batch_size
        with torch.random.fork_rng(), maybe_on_gpu():
            torch.manual_seed(seed)
            model = self._network(maps, rows)
            branch, dropout, linear = model
            dropout.train()
            parts: list[dict[str, Any]] = [
                {"params": list(trained(branch).values())},
                {"params": list(linear.parameters())},
            ]
            optimizer = torch.optim.AdamW(parts, weight_decay=recipe.weight_decay, fused=True)
            schedule = torch.optim.lr_scheduler.OneCycleLR(
                optimizer,
                [recipe.learning_rate, recipe.learning_rate * recipe.head_factor],
                recipe.epochs * -(-len(rows) // step),
                pct_start=recipe.warmup,
            )
            average = get_ema_multi_avg_fn(recipe.ema)  # type: ignore[no-untyped-call]
            averaged = AveragedModel(model, multi_avg_fn=average)
            for epoch in range(stop or recipe.epochs):
                order = rng.permutation(rows)
                batches = [order[i : i + step] for i in range(0, len(rows), step)]
                label = f"Fine-tuning, epoch {epoch + 1} of {recipe.epochs}"
                for some in track(batches, total=len(rows), label=label, size=len):
                    copies = rng.integers(0, maps.copies, len(some))
                    inputs = maps.read(self._train.rows[some], copies)
                    with torch.autocast("cuda", torch.bfloat16, enabled=inputs.is_cuda):
                        logits = model(inputs)
                    wanted = torch.from_numpy(self.truth[some]).to(self._device).float()
                    optimizer.zero_grad()
                    loss_of(logits.float(), wanted).backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
                    schedule.step()
                    averaged.update_parameters(model)
                dropout.eval()
                yield cast(nn.Sequential, averaged.module)
                dropout.train()  # normalisation stays as it is

    def _network(self, maps: Maps, rows: NDArray[np.int64]) -> nn.Sequential:
        """The part that is trained, dropout, and a classifier that starts from concepts' shares."""
        branch = new_branch(self._pretrained.model, self._recipe.freeze)
        branch = branch.to(self._device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        first = np.zeros(1, np.int64)
        with torch.inference_mode():
            length = branch(maps.read(first, first)).shape[1]
        linear = nn.Linear(length, len(self.vocabulary))
        share = self.truth[rows].mean(axis=0).clip(1 / len(rows), 1 - 1 / len(rows))
        with torch.no_grad():
            linear.weight.zero_()
            linear.bias.copy_(torch.logit(torch.from_numpy(share)))
        dropout = nn.Dropout(self._recipe.dropout)
        return nn.Sequential(branch, dropout, linear).to(self._device).eval()

    def _maps(self, data: Data, copies: int) -> Maps:
        """What the part that is not trained makes of copies of all images of a side.

        Args:
            data: Images of the side, which are charged for their share.
            copies: The image, its mirror image unless a concept names a side, and others.
        """
        preprocess, recipe = self._pretrained.preprocess, replace(self._recipe, copies=copies)

        def make_copies(frame: Image.Image, ref: ImageRef) -> NDArray[np.uint8]:
            content = content_key(ref.read())
            return copies_of(frame, content, preprocess, recipe, flip=self._flip, seed=0)

        def make() -> Maps:
            folder.mkdir(exist_ok=True)
            side = preprocess.smallest_side
            with maybe_on_gpu():
                return make_maps(data.side, self._trunk, make_copies, folder, smallest_side=side)

        augmentation = [
            *(copies, self._flip, recipe.gamma, recipe.rotation),
            *(recipe.area, recipe.stretch, recipe.noise),
        ]
        images = [(ref.id, ref.where) for ref in data.side]
        name = digest(_VERSION, self._name, augmentation, images)
        folder = self._folder / f"maps-{name}"
        data.once(folder, make, data.share)
        maps = make()  # what is there is not made again
        for where, error in maps.failed.items():
            raise AnnotatorError(f"{where} cannot be used any more: {error.message}.")
        return maps
