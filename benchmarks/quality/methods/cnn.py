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

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.data import Data, digest, maybe_on_gpu
from benchmarks.quality.labels import Vocabulary, best_threshold
from index.progress import track

if TYPE_CHECKING:
    import torch
    from torch import nn

PAPERS_THRESHOLD = 0.1
_SCALED_BY = 256  # training images
_VERSION = 3  # of the training: another one does not take what is kept


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


class Cnn:
    """The trained CNN.

    Args:
        folder: Where it is kept when it is trained. A row that finds it there is charged what the
            training cost.
        tuned: Choose the threshold, instead of the paper's 0.1.
        recipe: Other numbers than the paper's.
    """

    def __init__(self, folder: Path, *, tuned: bool, recipe: Recipe | None = None) -> None:
        self.name = f"CNN, {'best threshold' if tuned else 'threshold 0.1 (paper)'}"
        self.chosen: dict[str, Any] = {"threshold": PAPERS_THRESHOLD}
        self._folder, self._tuned, self._recipe = folder, tuned, recipe or Recipe()

    def fit(self, train: Data) -> None:
        """Train, or take what is trained; then choose the threshold."""
        import torch

        from annotator.encoders.torch_setup import choose_device

        self._vocabulary = Vocabulary(train.labels)
        truth = self._vocabulary.matrix(train.labels).toarray() > 0
        self._device = choose_device("auto")
        self._mean, self._deviation = scale_of(train, self._recipe.size)
        key = digest(_VERSION, asdict(self._recipe), train.ids, [sorted(r) for r in train.labels])
        train.pixels(self._recipe.size, np.arange(1))  # decoded and charged before the clock
        path = self._folder / f"cnn-{key}.pt"
        train.once(path, lambda: torch.save(self._trained(train, truth.astype(np.float32)), path))
        self._model = network(truth.shape[1], self._recipe).to(self._device)
        self._model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        self.chosen |= {"epochs": self._recipe.epochs}
        if self._tuned:
            self.chosen["threshold"] = best_threshold(truth, self._probabilities(train))

    def predict(self, test: Data) -> list[set[str]]:
        """The concepts that reach the threshold."""
        return self._vocabulary.sets(self._probabilities(test) >= self.chosen["threshold"])

    def _probabilities(self, data: Data) -> NDArray[np.float32]:
        """float32[n, concepts], without dropout."""
        import torch

        self._model.eval()
        step = self._recipe.batch
        with torch.inference_mode(), maybe_on_gpu():
            batches = [np.arange(i, min(i + step, len(data))) for i in range(0, len(data), step)]
            parts = [torch.sigmoid(self._logits(self._model, data, rows)) for rows in batches]
        return torch.cat(parts).cpu().numpy()

    def _logits(self, model: nn.Sequential, data: Data, rows: NDArray[np.int64]) -> torch.Tensor:
        """float32[len(rows), concepts]; in bf16 where the hardware multiplies it natively."""
        import torch

        from annotator.encoders.torch_setup import choose_precision

        pixels = torch.from_numpy(data.pixels(self._recipe.size, rows)).to(self._device)
        # The memory of n, size, size, 3 seen as n, 3, size, size is what channels-last means.
        inputs = (pixels.permute(0, 3, 1, 2).float() - self._mean) / self._deviation
        fast = choose_precision("auto", self._device) == "bf16"
        with torch.autocast(self._device.type, torch.bfloat16, enabled=fast):
            logits: torch.Tensor = model(inputs)
        return logits.float()

    def _trained(self, train: Data, truth: NDArray[np.float32]) -> dict[str, Any]:
        """The weights after the recipe's epochs, always the same ones."""
        import torch
        from torch.nn.functional import binary_cross_entropy_with_logits

        recipe, step = self._recipe, 0
        with torch.random.fork_rng(), maybe_on_gpu():
            torch.manual_seed(0)
            model = network(truth.shape[1], recipe).to(self._device)
            optimizer = torch.optim.Adam(model.parameters(), lr=recipe.learning_rate)
            for epoch in range(recipe.epochs):
                order = np.random.default_rng(epoch + 1).permutation(len(train))
                batches = [order[i : i + recipe.batch] for i in range(0, len(order), recipe.batch)]
                for rows in track(batches, total=len(batches), label=f"CNN epoch {epoch + 1}"):
                    for group in optimizer.param_groups:
                        group["lr"] = recipe.learning_rate / (1 + recipe.decay * step)
                    logits = self._logits(model, train, rows)
                    wanted = torch.from_numpy(truth[rows]).to(self._device)
                    loss = binary_cross_entropy_with_logits(logits, wanted)
                    optimizer.zero_grad()
                    loss.backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
                    step += 1
        return model.state_dict()


def scale_of(train: Data, size: int) -> tuple[float, float]:
    """Mean and deviation of the pixels of up to 256 training images, one for all channels."""
    rows = np.sort(np.random.default_rng(0).permutation(len(train))[:_SCALED_BY])
    pixels = (train.pixels(size, rows[i : i + 1]).astype(np.float64) for i in range(len(rows)))
    mean, square = np.mean([(p.mean(), (p**2).mean()) for p in pixels], axis=0)
    return float(mean), float(np.sqrt(max(square - mean**2, 1.0)))


def network(concepts: int, recipe: Recipe) -> nn.Sequential:
    """The untrained network: float32[n, 3, size, size] to logits float32[n, concepts]."""
    import torch
    from torch import nn

    layers: list[nn.Module] = []
    before, size = 3, recipe.size
    for block, maps in enumerate(recipe.maps):
        kernel = 5 if block == 0 else 3
        layers += [nn.Conv2d(before, maps, kernel), nn.ReLU(), nn.MaxPool2d(2)]
        layers += [nn.Dropout(recipe.dropout)]
        before, size = maps, (size - kernel + 1) // 2
    layers += [nn.Flatten(), nn.Linear(before * size * size, concepts)]
    model = nn.Sequential(*layers)
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]
