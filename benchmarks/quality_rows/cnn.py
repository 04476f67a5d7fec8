"""The CNN of the MQ-CSIRO paper (ImageCLEF 2019), trained to its description.

Input 400 x 400 x 3; four blocks of convolution (16, 32, 64, 128 feature maps; 5 x 5, then 3 x 3),
ReLU, 2 x 2 max-pooling and dropout 0.25; flatten; one sigmoid for each concept; binary
cross-entropy; Adam with learning rate 1e-4, divided by 1 + 1e-6 * step; batches of 32; 10 epochs.

Where the paper leaves things open, what makes the stronger opponent is taken: inputs less the mean
over the deviation of the training pixels, and PyTorch's initialisation. (On a held-out seventh of
the groups of a training side, after four epochs at 200 px, the cross-entropy was 0.12; with
Glorot's initialisation 0.16, with inputs in 0..1 0.16, with both 0.20.) Images are stretched to
squares, convolutions are not padded and run in bf16 where the hardware multiplies it natively,
which only makes the CNN cheaper.

Both rows train on the whole training side, as the paper does. The second row's threshold is the one
with the highest F1 on the predictions for the training images themselves, made without dropout: no
image is given up for choosing it, and one number is hardly overfitted.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from quality_rows.cost import Cost
from quality_rows.data import Data, digest
from quality_rows.decoders import best_threshold
from quality_rows.labels import Vocabulary

if TYPE_CHECKING:
    import torch
    from torch import nn

PAPERS_THRESHOLD = 0.1
_SCALED_BY = 256
_VERSION = 1  # of the training; another one does not continue from kept epochs


@dataclass(frozen=True)
class Recipe:
    """What is trained and how."""

    epochs: int = 10
    size: int = 400
    maps: tuple[int, ...] = (16, 32, 64, 128)
    dropout: float = 0.25
    learning_rate: float = 1e-4
    decay: float = 1e-6
    batch: int = 32
    seed: int = 0


@dataclass(frozen=True)
class Scale:
    """Mean and deviation of the pixels, one for all channels, since most images are grey."""

    mean: float
    deviation: float

    @classmethod
    def of(cls, train: Data, size: int) -> Scale:
        """Over up to 256 training images."""
        rows = np.sort(np.random.default_rng(0).permutation(len(train))[:_SCALED_BY])
        sums = [(p.sum(), (p**2).sum()) for p in (_one(train, size, row) for row in rows)]
        mean, square = np.sum(sums, axis=0) / (len(rows) * size * size * 3)
        return cls(float(mean), float(np.sqrt(max(square - mean**2, 1.0))))


class Cnn:
    """The trained CNN.

    Args:
        folder: Where it is kept after each epoch, to be continued from there. A row that finds it
            trained is charged what the training cost.
        tuned: Choose the threshold, instead of the paper's 0.1.
        recipe: Other numbers than the paper's.
    """

    def __init__(self, folder: Path, *, tuned: bool, recipe: Recipe | None = None) -> None:
        self.name = f"CNN, {'best threshold' if tuned else 'threshold 0.1 (paper)'}"
        self.chosen: dict[str, Any] = {"threshold": PAPERS_THRESHOLD}
        self._folder, self._tuned, self._recipe = folder, tuned, recipe or Recipe()

    def fit(self, train: Data) -> None:
        """Train, or continue, or take what is trained; then choose the threshold."""
        self._vocabulary = Vocabulary(train.labels)
        truth = self._vocabulary.matrix(train.labels).toarray() > 0
        labels = [sorted(row) for row in train.labels]
        key = digest(_VERSION, asdict(self._recipe), train.ids, labels)
        path = self._folder / f"cnn-{key}.pt"
        self._scale = Scale.of(train, self._recipe.size)
        self._model = trained(train, truth.astype(np.float32), self._recipe, self._scale, path)
        self.chosen |= {"epochs": self._recipe.epochs}
        if self._tuned:
            seen = predict(self._model, train, self._recipe, self._scale)
            self.chosen["threshold"] = best_threshold(truth, seen)

    def predict(self, test: Data) -> list[set[str]]:
        """The concepts that reach the threshold."""
        probabilities = predict(self._model, test, self._recipe, self._scale)
        return self._vocabulary.sets(probabilities >= self.chosen["threshold"])


def network(concepts: int, recipe: Recipe) -> nn.Sequential:
    """The untrained network: float32[n, 3, size, size] to logits float32[n, concepts]."""
    from torch import nn

    layers: list[nn.Module] = []
    before, size = 3, recipe.size
    for block, maps in enumerate(recipe.maps):
        kernel = 5 if block == 0 else 3
        layers += [nn.Conv2d(before, maps, kernel), nn.ReLU(), nn.MaxPool2d(2)]
        layers += [nn.Dropout(recipe.dropout)]
        before, size = maps, (size - kernel + 1) // 2
    layers += [nn.Flatten(), nn.Linear(before * size * size, concepts)]
    return nn.Sequential(*layers)


def trained(
    train: Data, truth: NDArray[np.float32], recipe: Recipe, scale: Scale, path: Path
) -> nn.Sequential:
    """Train for the recipe's epochs, from where the file `path` has it.

    Every epoch has its own seed, so an interrupted training ends in the same weights as one that
    was not interrupted.
    """
    import torch

    device = _device()
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        model = network(truth.shape[1], recipe)
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(model.parameters(), lr=recipe.learning_rate)
    epochs_done, before = 0, Cost()
    if path.exists():
        state = torch.load(path, map_location=device, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        epochs_done = state["epochs"]
        before = Cost(state["seconds"], state["cpu_seconds"])
        train.ledger.charge(str(path), before)
    for epoch in range(epochs_done, recipe.epochs):
        start = Cost.now()
        _one_epoch(model, optimizer, train, truth, recipe, scale, epoch)
        before += Cost.now() - start
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = path.with_suffix(".partial")
        torch.save(
            {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "epochs": epoch + 1,
                **vars(before),
            },
            whole,
        )
        whole.replace(path)
    return model


def predict(model: nn.Sequential, data: Data, recipe: Recipe, scale: Scale) -> NDArray[np.float32]:
    """float32[n, concepts]: probabilities, without dropout."""
    import torch

    model.eval()
    parts = []
    with torch.inference_mode():
        for start in range(0, len(data), recipe.batch):
            rows = np.arange(start, min(start + recipe.batch, len(data)))
            with _bf16():
                logits = model(_batch(data, rows, recipe, scale))
            parts.append(torch.sigmoid(logits.float()).cpu().numpy())
    return np.concatenate(parts)


def _one_epoch(
    model: nn.Sequential,
    optimizer: torch.optim.Optimizer,
    train: Data,
    truth: NDArray[np.float32],
    recipe: Recipe,
    scale: Scale,
    epoch: int,
) -> None:
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits

    seed = 1000 * recipe.seed + epoch + 1
    order = np.random.default_rng(seed).permutation(len(train))
    batches = [order[i : i + recipe.batch] for i in range(0, len(order), recipe.batch)]
    model.train()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        progress = tqdm(batches, desc=f"CNN epoch {epoch + 1}", unit=" batches", delay=1)
        for i, rows in enumerate(progress):
            step = epoch * len(batches) + i
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate / (1 + recipe.decay * step)
            with _bf16():
                logits = model(_batch(train, rows, recipe, scale))
            wanted = torch.from_numpy(truth[rows]).to(logits.device)
            loss = binary_cross_entropy_with_logits(logits.float(), wanted)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()


def _batch(data: Data, rows: NDArray[np.int64], recipe: Recipe, scale: Scale) -> torch.Tensor:
    import torch

    pixels = torch.from_numpy(data.pixels(recipe.size, rows)).to(_device())
    # The memory of n, size, size, 3 seen as n, 3, size, size is what channels-last means.
    return (pixels.permute(0, 3, 1, 2).float() - scale.mean) / scale.deviation


def _one(data: Data, size: int, row: int) -> NDArray[np.float64]:
    return data.pixels(size, np.array([row])).astype(np.float64)


def _device() -> torch.device:
    from annotator.encoders.torch_setup import choose_device

    return choose_device("auto")


@contextlib.contextmanager
def _bf16() -> Iterator[None]:
    import torch

    from annotator.encoders.torch_setup import choose_precision

    device = _device()
    with torch.autocast(
        device.type, torch.bfloat16, enabled=choose_precision("auto", device) == "bf16"
    ):
        yield
