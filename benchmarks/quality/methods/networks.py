"""Fine-tuned networks: what is trained and how, kept on disk and shared by all rows that use one.

The packaged EfficientNets keep their stem and first stages as ImageNet left them, so what these
make of each image and of its augmented copies is computed once. The later stages, the head and a
new classifier are trained by AdamW under a one-cycle schedule, one copy of an image at a time;
normalisation keeps its ImageNet statistics. Of a network of timm the first half of the parameters
stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.nn import functional

from annotator.encoders.efficientnet import packaged
from annotator.encoders.local_runner import cpu_count
from annotator.encoders.preprocess import Preprocess
from annotator.encoders.timm_encoder import make_timm
from annotator.encoders.torch_setup import choose_device
from annotator.images.decode import decode
from annotator.images.ordered_map import ordered_map
from annotator.images.ref import ImageRef
from benchmarks.quality.data import Data, digest, maybe_on_gpu
from benchmarks.quality.labels import group_folds
from index.progress import track

Floats = NDArray[np.float32]
Maps = NDArray[np.generic]

FOLDS = 3
_VERSION = 2  # of the training: another one does not take what is kept
_AT_ONCE = 32  # images through the frozen stages, or through a trained network
_PREDICTED = 2  # copies that a prediction is the mean of: the image and its mirror image


@dataclass(frozen=True)
class Recipe:
    """What is trained and how.

    Attributes:
        encoder: A packaged network, or timm:NAME@FILE.
        frozen: Stages after the stem that are not trained, of a packaged network.
        copies: Copies of each image: as it is, mirrored, the others drawn.
        learning_rate: Highest of the network.
        classifier_rate: Highest of the classifier.
    """

    encoder: str = "efficientnet-lite0"
    frozen: int = 4
    copies: int = 6
    epochs: int = 8
    loss: Literal["cross-entropy", "asymmetric"] = "cross-entropy"
    learning_rate: float = 5e-4
    classifier_rate: float = 5e-3
    decay: float = 0.05
    dropout: float = 0.2
    batch: int = 32


@dataclass(frozen=True)
class Backbone:
    """A network in two parts.

    Attributes:
        preprocess: Of its input.
        frozen: float[n, 3, size, size] of 0..255 to the maps that are kept.
        kept_as: Type of the maps.
        trained: From the maps, float[n, c, h, w], to float[n, features].
        features: Length of its vectors.
    """

    preprocess: Preprocess
    frozen: nn.Module
    kept_as: type[np.generic]
    trained: nn.Module
    features: int


class Normalise(nn.Module):
    """Pixels of 0..255 to what a network takes."""

    def __init__(self, preprocess: Preprocess) -> None:
        super().__init__()
        self.mean = nn.Buffer(255 * torch.tensor(preprocess.mean).view(1, 3, 1, 1))
        self.deviation = nn.Buffer(255 * torch.tensor(preprocess.std).view(1, 3, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        """float[n, 3, h, w] to float[n, 3, h, w]."""
        normalised: Tensor = (pixels - self.mean) / self.deviation
        return normalised


def backbone(recipe: Recipe) -> Backbone:
    """The pretrained network of a recipe.

    Raises:
        AnnotatorError: There is no such network, or it lacks its weights.
    """
    network: Any
    kind, _, rest = recipe.encoder.partition(":")
    if kind == "timm":
        encoder = make_timm(rest)
        preprocess, network = encoder.preprocess, encoder.model
        left = sum(parameter.numel() for parameter in network.parameters()) // 2
        for parameter in network.parameters():
            left -= parameter.numel()
            parameter.requires_grad_(left < 0)
        trained = nn.Sequential(Normalise(preprocess), network)
        return Backbone(preprocess, nn.Identity(), np.uint8, trained, network.num_features)
    encoder = packaged(recipe.encoder)
    preprocess, network = encoder.preprocess, encoder.model
    stages = network.blocks
    frozen = nn.Sequential(
        Normalise(preprocess), network.conv_stem, network.bn1, *stages[: recipe.frozen]
    )
    trained = nn.Sequential(
        *stages[recipe.frozen :],
        network.conv_head,
        network.bn2,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    return Backbone(preprocess, frozen.eval(), np.float16, trained, network.conv_head.out_channels)


class Classifier(nn.Module):
    """The trained part of a backbone, and a classifier that starts from the concepts' shares.

    Args:
        recipe: Names the backbone.
        share: float32[concepts], of the n training images.
        n: Training images.
    """

    def __init__(self, recipe: Recipe, share: Floats, n: int) -> None:
        super().__init__()
        parts = backbone(recipe)
        self.body, self.dropout = parts.trained, nn.Dropout(recipe.dropout)
        self.linear = nn.Linear(parts.features, len(share))
        with torch.no_grad():
            self.linear.weight.zero_()
            self.linear.bias.copy_(torch.logit(torch.from_numpy(np.clip(share, 1 / n, 1 - 1 / n))))

    def forward(self, maps: Tensor) -> Tensor:
        """float[n, c, h, w] to logits float[n, concepts]."""
        logits: Tensor = self.linear(self.dropout(self.body(maps)))
        return logits


def asymmetric(logits: Tensor, truth: Tensor) -> Tensor:
    """The asymmetric loss of Ridnik et al. 2021 ("Asymmetric loss for multi-label classification"),
    with their focusing of negatives by 4, of positives by 0, and margin 0.05.
    """
    shifted = (torch.sigmoid(logits) - 0.05).clamp(min=0)
    positive = truth * functional.logsigmoid(logits)
    negative = (1 - truth) * shifted**4 * torch.log1p(-shifted)
    return -(positive + negative).sum(dim=1).mean()


_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross-entropy": functional.binary_cross_entropy_with_logits,
    "asymmetric": asymmetric,
}


class Networks:
    """The networks that a recipe makes of a training side.

    Args:
        folder: Where they are kept.
        recipe: How they are trained.
        train: The training side; charged for what is used, whenever that was made.
        truth: float32[n, concepts] of zeros and ones.
    """

    def __init__(self, folder: Path, recipe: Recipe, train: Data, truth: Floats) -> None:
        self._folder, self._recipe, self._train, self._truth = folder, recipe, train, truth
        self._digest = digest(
            _VERSION, asdict(recipe), train.ids, [sorted(row) for row in train.labels]
        )

    def trained(self, seed: int) -> Classifier:
        """A network that was trained on the whole side."""
        maps = maps_of_side(self._train, self._folder, self._recipe, self._recipe.copies)
        path = self._folder / f"finetuned-{self._digest}-{seed}.pt"
        rows = np.arange(len(self._truth))
        self._train.once(path, lambda: torch.save(self._fit(maps, rows, seed).state_dict(), path))
        model = self._network(rows)
        model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        return model.to(choose_device("auto"))

    def out_of_fold(self, seed: int) -> Floats:
        """float32[n, concepts]: probabilities of the side by networks that have not seen an image's
        group.
        """
        maps = maps_of_side(self._train, self._folder, self._recipe, self._recipe.copies)
        path = self._folder / f"finetuned-{self._digest}-{seed}-out-of-fold.npy"

        def work() -> None:
            found = np.zeros(self._truth.shape, np.float32)
            for fitted, held in group_folds(self._train.groups, FOLDS):
                model, rows = self._fit(maps, fitted, seed), self._train.rows[held]
                found[held] = probabilities(model, maps[:_PREDICTED], rows)
            np.save(path, found)

        self._train.once(path, work)
        return np.asarray(np.load(path))

    def _network(self, rows: NDArray[np.int64]) -> Classifier:
        model = Classifier(self._recipe, self._truth[rows].mean(axis=0), len(rows)).eval()
        return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]

    def _fit(self, maps: Maps, rows: NDArray[np.int64], seed: int) -> Classifier:
        """A network trained on some rows; the same seed gives the same one."""
        recipe, device, loss_of = self._recipe, choose_device("auto"), _LOSSES[self._recipe.loss]
        rng = np.random.default_rng(seed)
        with torch.random.fork_rng(), maybe_on_gpu():
            torch.manual_seed(seed)
            model = self._network(rows).to(device)
            model.dropout.train()  # normalisation stays as it is
            parts: list[dict[str, Any]] = [
                {"params": [p for p in model.body.parameters() if p.requires_grad]},
                {"params": model.linear.parameters()},
            ]
            optimizer = torch.optim.AdamW(parts, weight_decay=recipe.decay)
            rates = [recipe.learning_rate, recipe.classifier_rate]
            steps = recipe.epochs * -(-len(rows) // recipe.batch)
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, steps, pct_start=0.1)
            for epoch in range(recipe.epochs):
                order = rng.permutation(rows)
                batches = [order[i : i + recipe.batch] for i in range(0, len(rows), recipe.batch)]
                for some in track(
                    batches, total=len(rows), label=f"Fine-tuning, epoch {epoch + 1}", size=len
                ):
                    copies = rng.integers(0, len(maps), len(some))
                    shown = maps[copies, self._train.rows[some]]
                    logits = model(_inputs(shown, device))
                    loss = loss_of(logits, torch.from_numpy(self._truth[some]).to(device))
                    optimizer.zero_grad()
                    loss.backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
                    schedule.step()
        return model.eval()


def predicted(model: Classifier, data: Data, folder: Path, recipe: Recipe) -> Floats:
    """float32[n, concepts]: probabilities of images, the mean of each and its mirror image."""
    maps = maps_of_side(data, folder, recipe, _PREDICTED)
    return probabilities(model, maps, data.rows)


def probabilities(model: Classifier, maps: Maps, rows: NDArray[np.int64]) -> Floats:
    """float32[len(rows), concepts]: the mean probability over copies.

    Args:
        model: In evaluation mode.
        maps: [copies, n, h, w, c].
        rows: Of the n images.
    """
    device = next(model.parameters()).device
    found = []
    with torch.inference_mode(), maybe_on_gpu():
        for start in range(0, len(rows), _AT_ONCE):
            some = rows[start : start + _AT_ONCE]
            chances = [torch.sigmoid(model(_inputs(copy[some], device))) for copy in maps]
            found.append(torch.stack(chances).mean(dim=0).cpu().numpy())
    return np.concatenate(found)


def maps_of_side(data: Data, folder: Path, recipe: Recipe, copies: int) -> Maps:
    """What the frozen stages make of copies of all images of a side: [copies, n, h, w, c].

    Mapped from disk.

    Args:
        data: Images of the side, which are charged for their share.
        folder: Where the maps are kept.
        recipe: Names the backbone.
        copies: The first one is the image as it is, the second its mirror image, others are drawn.
    """
    parts = (_VERSION, recipe.encoder, recipe.frozen, copies, [ref.id for ref in data.side])
    path = folder / f"maps-{digest(*parts, [ref.where for ref in data.side])}.npy"
    data.once(path, lambda: _write_maps(data.side, path, backbone(recipe), copies), data.share)
    kept: Maps = np.load(path, mmap_mode="r")
    return kept


def _write_maps(images: Sequence[ImageRef], path: Path, parts: Backbone, copies: int) -> None:
    device = choose_device("auto")
    frozen = parts.frozen.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    items = list(enumerate(images))
    pixels = ordered_map(
        lambda item: _pixels_of_copies(*item, parts.preprocess, copies), items, workers=cpu_count()
    )
    table: Any = None
    with torch.inference_mode(), maybe_on_gpu():
        for row, own in enumerate(
            track(pixels, total=len(items), label="What the frozen stages make of images")
        ):
            maps = frozen(_inputs(own, device)).permute(0, 2, 3, 1).cpu().numpy()
            if table is None:
                shape = (copies, len(items), *maps.shape[1:])
                table = np.lib.format.open_memmap(path, "w+", parts.kept_as, shape)
            table[:, row] = maps
    table.flush()


def _pixels_of_copies(
    row: int, ref: ImageRef, preprocess: Preprocess, copies: int
) -> NDArray[np.uint8]:
    """uint8[copies, size, size, 3]; the same row gives the same copies."""
    image = decode(ref.read(), at_least=preprocess.smallest_side).frames[0]
    drawn = [augmented(image, np.random.default_rng((row, copy))) for copy in range(2, copies)]
    return np.stack([preprocess(copy) for copy in (image, ImageOps.mirror(image), *drawn)])


def augmented(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A copy with another gamma, turned by up to 10 degrees, cropped, every other one mirrored."""
    image = image.convert("RGB")
    gamma = float(np.exp(rng.uniform(-0.3, 0.3)))
    image = image.point([round(255 * (value / 255) ** gamma) for value in range(256)] * 3)
    image = image.rotate(rng.uniform(-10, 10), Image.Resampling.BILINEAR)
    area, ratio = rng.uniform(0.75, 1.0), np.exp(rng.uniform(-0.1, 0.1))
    width = min(image.width, max(1, int(image.width * np.sqrt(area) * ratio)))
    height = min(image.height, max(1, int(image.height * np.sqrt(area) / ratio)))
    left = int(rng.integers(0, image.width - width + 1))
    top = int(rng.integers(0, image.height - height + 1))
    image = image.crop((left, top, left + width, top + height))
    return ImageOps.mirror(image) if rng.random() < 0.5 else image


def _inputs(maps: Maps, device: torch.device) -> Tensor:
    """[n, h, w, c] in memory as float32[n, c, h, w], whose memory is channels-last already."""
    return torch.from_numpy(maps).to(device).permute(0, 3, 1, 2).float()
