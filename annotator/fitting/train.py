"""Training of one branch with its head: schedule, averaging, early stopping, checkpoints."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from annotator.encoders.branches import trained
from annotator.errors import AnnotatorError
from annotator.files import whole_file
from annotator.fitting.loss import loss_of
from annotator.fitting.maps import Maps
from annotator.fitting.measure import head_f1, vote_f1
from annotator.fitting.recipe import Recipe
from annotator.knn.cross_validation import rows_for_tuning
from annotator.knn.voting import Voting
from index import LabelTable
from index.progress import track

_START, _END = 1 / 25, 1 / 25e4  # learning rates, in units of the highest
_MOST_MOMENTUM, _LEAST_MOMENTUM = 0.95, 0.85  # the least where the learning rate is highest


@dataclass(frozen=True)
class Examples:
    """The images that an encoder is fitted to.

    Attributes:
        maps: Of n images.
        labels: bool[n, c], the concepts of the head that each image has.
        concepts: All concepts of each image.
    """

    maps: Maps
    labels: NDArray[np.bool_]
    concepts: LabelTable


@dataclass(frozen=True)
class Epoch:
    """One epoch of a branch.

    Attributes:
        epoch: Its number, from 1.
        loss: Mean over the training images, as they were seen.
        vote_f1: Mean F1 of the vote on images that the branch has not seen; NaN if there are none.
        head_f1: Mean F1 of its head on them.
        seconds: Wall-clock time since the training of the branch began.
        cpu_seconds: Processor time of the same.
    """

    epoch: int
    loss: float
    vote_f1: float
    head_f1: float
    seconds: float
    cpu_seconds: float


@dataclass(frozen=True)
class TrainedBranch:
    """A branch as it was in its best epoch.

    Attributes:
        tensors: Its trained parameters by name, float32.
        weights: float32[length, c], of its head, for features of unit norm.
        biases: float32[c].
        curve: Its epochs.
        held_out: Number of images by which they were compared; 0 for a branch that saw all.
    """

    tensors: Mapping[str, Tensor]
    weights: Tensor
    biases: Tensor
    curve: Sequence[Epoch]
    held_out: int

    @property
    def best(self) -> Epoch:
        """The epoch that was kept."""
        return _best(self.curve)


def _best(curve: Sequence[Epoch]) -> Epoch:
    """The epoch with the best vote; the last of a branch that has no images to compare them by."""
    return curve[-1] if math.isnan(curve[-1].vote_f1) else max(curve, key=lambda e: e.vote_f1)


class HeadedBranch(nn.Module):
    """A branch, and a linear classifier of its features at unit norm.

    Args:
        branch: From `annotator.encoders.branches.new_branch`.
        length: Of its features.
        shares: float32[c], the share of the training images that has each concept.
        recipe: Scale and dropout.
    """

    def __init__(self, branch: nn.Module, length: int, shares: Tensor, recipe: Recipe) -> None:
        super().__init__()
        self.branch = branch
        self.head = nn.Linear(length, len(shares))
        self._scale, self._dropout = recipe.scale, recipe.dropout
        nn.init.zeros_(self.head.weight)
        self.head.bias.data.copy_(torch.logit(shares))

    def forward(
        self, inputs: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Features float32[n, length] of unit norm, and log-odds float32[n, c].

        Args:
            inputs: Of the branch.
            generator: Draws what is dropped, in training.
        """
        with torch.autocast("cuda", torch.bfloat16, enabled=inputs.is_cuda):
            features = self.branch(inputs)
        unit = nn.functional.normalize(features.float(), dim=1)
        read = unit * self._scale
        if generator is not None:
            kept = torch.rand(read.shape, generator=generator) >= self._dropout
            read = read * kept.to(read) / (1 - self._dropout)
        return unit, self.head(read)


def one_cycle(step: int, steps: int, warmup: float) -> tuple[float, float]:
    """Learning rate, in units of the highest, and momentum at a step.

    Smith and Topin 2018, "Super-Convergence: Very Fast Training of Neural Networks Using Large
    Learning Rates", with cosines, as in torch's OneCycleLR.

    Args:
        step: From 0.
        steps: Number of steps in all.
        warmup: Share of the steps in which the learning rate rises.
    """

    def between(start: float, end: float, part: float) -> float:
        return end + (start - end) * (1 + math.cos(math.pi * part)) / 2

    top = max(warmup * steps - 1, 0.0)
    if step < top:
        part = step / top
        return between(_START, 1, part), between(_MOST_MOMENTUM, _LEAST_MOMENTUM, part)
    part = (step - top) / max(steps - 1 - top, 1.0)
    return between(1, _END, part), between(_LEAST_MOMENTUM, _MOST_MOMENTUM, part)


def train_branch(
    branch: nn.Module,
    examples: Examples,
    rows: NDArray[np.int64],
    held_out: NDArray[np.int64],
    recipe: Recipe,
    *,
    seeds: tuple[int, ...],
    device: torch.device,
    checkpoint: Path,
    label: str,
    on_epoch: Callable[[Epoch], None],
    stop: int | None = None,
) -> TrainedBranch:
    """Train a branch on some images, or go on from its last epoch.

    All that is random in an epoch is drawn from `seeds` and its number, so an interrupted training
    gives the same weights as one that was not.

    Args:
        branch: Untrained; changed in place.
        examples: The images.
        rows: int64[n], those to train on.
        held_out: int64[m], those by which epochs are compared; of other groups. With none, the last
            epoch is kept.
        recipe: How to train.
        seeds: Of this branch.
        device: Where to train.
        checkpoint: File with the state after each epoch.
        label: For the progress.
        on_epoch: Called with each epoch when it has ended and is saved.
        stop: Number of the last epoch; None for as many as `recipe` has. The schedule is the same.

    Raises:
        AnnotatorError: The loss is not finite.
    """
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
        training = _Training(branch, examples, rows, held_out, recipe, seeds, device, stop)
        training.resume(checkpoint)
        while not training.finished:
            epoch = training.run_epoch(label)
            training.save(checkpoint)
            on_epoch(epoch)
        return training.result()


class _Training:
    """The state of a training, which is saved after each epoch."""

    def __init__(
        self,
        branch: nn.Module,
        examples: Examples,
        rows: NDArray[np.int64],
        held_out: NDArray[np.int64],
        recipe: Recipe,
        seeds: tuple[int, ...],
        device: torch.device,
        stop: int | None = None,
    ) -> None:
        self.examples, self.rows, self.recipe = examples, rows, recipe
        self.held_out = held_out[rows_for_tuning(len(held_out))]
        self.seeds, self.device = seeds, device
        labels = examples.labels
        first = examples.maps.read(rows[:1], np.zeros(1, np.int64))
        branch = branch.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        with torch.inference_mode():
            length = branch(first).shape[1]
        shares = labels[rows].mean(axis=0).clip(1 / len(rows), 1 - 1 / len(rows))
        self.model = HeadedBranch(
            branch, length, torch.from_numpy(shares.astype(np.float32)), recipe
        ).to(device)
        self.averaged = copy.deepcopy(self.model) if recipe.ema else self.model
        self.optimizer = torch.optim.AdamW(
            [
                {"params": list(trained(self.model.branch).values())},
                {"params": list(self.model.head.parameters())},
            ],
            weight_decay=recipe.weight_decay,
            fused=True,
        )
        batches = -(-len(rows) // recipe.batch_size)
        self.step = 0
        self.steps = recipe.epochs * -(-batches // recipe.accumulate)
        self.last = recipe.epochs if stop is None else stop
        self.curve: list[Epoch] = []
        self.best: dict[str, Tensor] = {}

    @property
    def best_epoch(self) -> int:
        """Number of the best epoch so far, 0 before the first."""
        return _best(self.curve).epoch if self.curve else 0

    @property
    def finished(self) -> bool:
        waited = len(self.curve) - self.best_epoch
        return len(self.curve) >= self.last or waited >= self.recipe.patience

    def run_epoch(self, label: str) -> Epoch:
        started, cpu_started = time.perf_counter(), time.process_time()
        number = len(self.curve) + 1
        rng = np.random.default_rng([*self.seeds, number])
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        order, size = rng.permutation(len(self.rows)), self.recipe.batch_size
        copies = rng.integers(0, self.examples.maps.copies, len(order))
        features = np.zeros((len(order), self.model.head.in_features), np.float32)
        parts = [order[i : i + size] for i in range(0, len(order), size)]
        total = 0.0
        label = f"{label}, epoch {number} of {self.recipe.epochs}"
        for i, part in enumerate(track(parts, total=len(order), label=label, size=len)):
            rows = self.rows[part]
            unit, log_odds = self.model(self.examples.maps.read(rows, copies[part]), generator)
            labels = torch.from_numpy(self.examples.labels[rows]).to(self.device).float()
            loss = loss_of(unit, log_odds, labels, self.recipe)
            (loss / self.recipe.accumulate).backward()  # type: ignore[no-untyped-call]
            if (i + 1) % self.recipe.accumulate == 0 or i + 1 == len(parts):
                self._step()
            total += loss.item() * len(part)
            features[part] = unit.detach().cpu().numpy()
        if not math.isfinite(total):
            raise AnnotatorError(
                f"{label}: the loss is not finite, so training has diverged.",
                "Use a smaller --learning-rate.",
            )
        vote, head = self._measure(features)
        before = self.curve[-1] if self.curve else Epoch(0, 0.0, 0.0, 0.0, 0.0, 0.0)
        epoch = Epoch(
            number,
            total / len(order),
            vote,
            head,
            before.seconds + time.perf_counter() - started,
            before.cpu_seconds + time.process_time() - cpu_started,
        )
        self.curve.append(epoch)
        if self.best_epoch == number:
            self.best = {name: p.detach().clone() for name, p in trained(self.averaged).items()}
        return epoch

    def _step(self) -> None:
        rate, momentum = one_cycle(self.step, self.steps, self.recipe.warmup)
        factors = (1.0, self.recipe.head_factor)
        for group, factor in zip(self.optimizer.param_groups, factors, strict=True):
            group["lr"] = self.recipe.learning_rate * factor * rate
            group["betas"] = (momentum, group["betas"][1])
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        if self.averaged is not self.model:
            # At first the average is of few steps: what was before the training does not count.
            decay = min(self.recipe.ema, self.step / (self.step + 9))
            pairs = zip(trained(self.averaged).values(), trained(self.model).values(), strict=True)
            with torch.no_grad():
                for average, parameter in pairs:
                    average.lerp_(parameter, 1 - decay)

    def _measure(self, features: NDArray[np.float32]) -> tuple[float, float]:
        """F1 of the vote and of the head on the images that were held out.

        Args:
            features: float32[n, length], of the training images as they were seen in the epoch.
        """
        if not len(self.held_out):
            return math.nan, math.nan
        units, odds = [], []
        with torch.inference_mode():
            for start in range(0, len(self.held_out), self.recipe.batch_size):
                part = self.held_out[start : start + self.recipe.batch_size]
                unit, log_odds = self.averaged(
                    self.examples.maps.read(part, np.zeros(len(part), np.int64))
                )
                units.append(unit.cpu().numpy())
                odds.append(log_odds.cpu().numpy())
        concepts = self.examples.concepts
        vote = vote_f1(
            features,
            concepts.take(self.rows),
            np.concatenate(units),
            concepts.take(self.held_out),
            Voting(beta=self.recipe.beta),
        )
        sizes, labels = concepts.sizes[self.held_out], self.examples.labels[self.held_out]
        return vote, head_f1(np.concatenate(odds), labels, sizes)

    def save(self, checkpoint: Path) -> None:
        """Write the state; of a training that has finished, only its result."""
        state: dict[str, Any] = {"best": self.best, "curve": [astuple(e) for e in self.curve]}
        if not self.finished:
            state["step"] = self.step
            for name, model in (("model", self.model), ("averaged", self.averaged)):
                state[name] = {key: p.detach() for key, p in trained(model).items()}
            state["optimizer"] = self.optimizer.state_dict()
        with whole_file(checkpoint) as temporary:
            torch.save(state, temporary)

    def resume(self, checkpoint: Path) -> None:
        """Take over a state that was saved, if there is one."""
        if not checkpoint.is_file():
            return
        state = torch.load(checkpoint, map_location=self.device, weights_only=True)
        self.best = state["best"]
        self.curve = [Epoch(*values) for values in state["curve"]]
        if self.finished:
            return
        self.step = state["step"]
        for name, model in (("model", self.model), ("averaged", self.averaged)):
            for key, parameter in trained(model).items():
                parameter.data.copy_(state[name][key])
        self.optimizer.load_state_dict(state["optimizer"])

    def result(self) -> TrainedBranch:
        best = {name: tensor.float().cpu() for name, tensor in self.best.items()}
        weights, biases = best.pop("head.weight"), best.pop("head.bias")
        tensors = {name.removeprefix("branch."): tensor for name, tensor in best.items()}
        scaled = weights.T.contiguous() * self.recipe.scale
        return TrainedBranch(tensors, scaled, biases, self.curve, len(self.held_out))
