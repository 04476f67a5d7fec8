"""The packaged EfficientNet-Lite0, its last blocks trained on: what a CPU fine-tunes in minutes.

The stem and the first blocks stay as ImageNet left them, so what they make of each image (and of
its mirror image, the only augmentation) is computed once. The last three blocks, the head and a new
classifier are trained with binary cross-entropy by AdamW under a cosine schedule; normalisation
keeps its ImageNet statistics. Each training image is also predicted out of fold, by a network that
has seen none of its group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.data import Cost, Data, digest
from benchmarks.quality.labels import Vocabulary, best_threshold, f1_of_rows, group_folds
from index.progress import track

Floats = NDArray[np.float32]

_VERSION = 1  # of the training: another one does not take what is kept
_SIDE = 224  # pixels
_AT_ONCE = 64  # images through the frozen blocks


@dataclass(frozen=True)
class Recipe:
    """What is trained and how."""

    encoder: str = "efficientnet-lite0"
    frozen: int = 4  # blocks after the stem
    epochs: int = 8
    learning_rate: float = 5e-4
    classifier_rate: float = 5e-3
    decay: float = 0.05
    dropout: float = 0.2
    batch: int = 32


class FineTuned:
    """The fine-tuned network with one threshold for all concepts, chosen out of fold.

    Args:
        folder: Where it is kept when it is trained. A run that finds it there is charged what the
            training cost.
        recipe: Other numbers than the default ones.

    Attributes:
        vocabulary: The concepts, in the order of the columns below.
        out_of_fold: float32[n, concepts], probabilities of the training side, after `fit`.
    """

    def __init__(self, folder: Path, recipe: Recipe | None = None) -> None:
        self.name = "EfficientNet-Lite0, fine-tuned, tuned threshold"
        self.chosen: dict[str, Any] = {}
        self._folder, self._recipe = folder, recipe or Recipe()

    def fit(self, train: Data) -> None:
        """Predict out of fold, train on the whole side, or take what is kept; threshold."""
        import torch

        self.vocabulary = Vocabulary(train.labels)
        truth = self.vocabulary.matrix(train.labels).toarray().astype(np.float32)
        key = digest(
            _VERSION, asdict(self._recipe), train.ids, [sorted(row) for row in train.labels]
        )
        path = self._folder / f"finetuned-{key}.pt"
        if path.exists():
            kept = torch.load(path, map_location="cpu", weights_only=True)
            train.charge("finetuned", Cost(*kept["cost"]))
        else:
            start = Cost.now()
            chances, weights = self._cross_fitted(train, truth)
            cost = Cost.now() - start
            kept = {
                "out_of_fold": torch.from_numpy(chances),
                "model": weights,
                "cost": (cost.seconds, cost.cpu_seconds),
            }
            self._folder.mkdir(parents=True, exist_ok=True)
            torch.save(kept, path)
        self.out_of_fold: Floats = kept["out_of_fold"].numpy()
        self._model = self._network(truth.mean(axis=0), len(truth)).eval()
        self._model.load_state_dict(kept["model"])
        threshold = best_threshold(truth > 0, self.out_of_fold)
        f1 = float(f1_of_rows(truth > 0, self.out_of_fold >= threshold).mean())
        self.chosen = {"threshold": threshold, "f1_on_training_side": round(f1, 4)}

    def predict(self, test: Data) -> list[set[str]]:
        """The concepts that reach the threshold."""
        return self.vocabulary.sets(self.probabilities(test) >= self.chosen["threshold"])

    def probabilities(self, data: Data) -> Floats:
        """float32[n, concepts], the mean of an image and its mirror image."""
        return _predicted(self._model, self._frozen_maps(data))

    def _cross_fitted(self, train: Data, truth: Floats) -> tuple[Floats, Any]:
        """Out-of-fold probabilities, and the weights trained on the whole side."""
        maps = self._frozen_maps(train)
        chances = np.zeros(truth.shape, np.float32)
        for fitted, held in group_folds(train.groups):
            model = self._trained([part[fitted] for part in maps], truth[fitted])
            chances[held] = _predicted(model, [part[held] for part in maps])
        return chances, self._trained(maps, truth).state_dict()

    def _frozen_maps(self, data: Data) -> list[NDArray[np.float16]]:
        """What the frozen blocks make of the images and of their mirror images: float16[n, c, h, w]
        each."""
        import torch

        from annotator.encoders.efficientnet import packaged_network

        network = packaged_network(self._recipe.encoder)
        first = torch.nn.Sequential(
            network.conv_stem, network.bn1, *network.blocks[: self._recipe.frozen]
        )
        parts: tuple[list[Any], list[Any]] = ([], [])
        starts = range(0, len(data), _AT_ONCE)
        with torch.inference_mode():
            for start in track(starts, total=len(starts), label="Frozen blocks", unit="batches"):
                rows = np.arange(start, min(start + _AT_ONCE, len(data)))
                pixels = torch.from_numpy(data.pixels(_SIDE, rows)).permute(0, 3, 1, 2)
                inputs = pixels.float() / 127.5 - 1
                parts[0].append(first(inputs).half().numpy())
                parts[1].append(first(inputs.flip(3)).half().numpy())
        return [np.concatenate(part) for part in parts]

    def _network(self, share: Floats, n: int) -> Any:
        """The later blocks with a classifier that predicts each concept's share of the images."""
        import torch

        from annotator.encoders.efficientnet import packaged_network

        network = packaged_network(self._recipe.encoder)
        classifier = torch.nn.Linear(network.num_features, len(share))
        with torch.no_grad():
            classifier.weight.zero_()
            classifier.bias.copy_(torch.logit(torch.from_numpy(np.clip(share, 1 / n, 1 - 1 / n))))
        body = torch.nn.Sequential(
            *network.blocks[self._recipe.frozen :], network.conv_head, network.bn2
        )
        return torch.nn.Sequential(
            body,
            torch.nn.AdaptiveAvgPool2d(1),
            torch.nn.Flatten(),
            torch.nn.Dropout(self._recipe.dropout),
            classifier,
        ).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _trained(self, maps: Sequence[NDArray[np.float16]], truth: Floats) -> Any:
        """The later blocks after the recipe's epochs, always the same ones."""
        import torch
        from torch.nn.functional import binary_cross_entropy_with_logits

        recipe, n = self._recipe, len(truth)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = self._network(truth.mean(axis=0), n).eval()
            model[3].train()  # dropout; normalisation stays as it is
            rates = [recipe.learning_rate, recipe.classifier_rate]
            parts = [{"params": model[0].parameters()}, {"params": model[4].parameters()}]
            optimizer = torch.optim.AdamW(parts, weight_decay=recipe.decay)
            steps = recipe.epochs * -(-n // recipe.batch)
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, steps, pct_start=0.1)
            for epoch in range(recipe.epochs):
                rng = np.random.default_rng(epoch)
                order = rng.permutation(n)
                batches = [order[i : i + recipe.batch] for i in range(0, n, recipe.batch)]
                for rows in track(batches, total=n, label=f"Epoch {epoch + 1}", size=len):
                    mirrored = rng.random(len(rows)) < 0.5
                    chosen = np.where(mirrored[:, None, None, None], maps[1][rows], maps[0][rows])
                    logits = model(_inputs(chosen))
                    loss = binary_cross_entropy_with_logits(logits, torch.from_numpy(truth[rows]))
                    optimizer.zero_grad()
                    loss.backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
                    schedule.step()
        return model.eval()


def _inputs(maps: NDArray[np.float16]) -> Any:
    import torch

    return torch.from_numpy(maps).float().contiguous(memory_format=torch.channels_last)


def _predicted(model: Any, maps: Sequence[NDArray[np.float16]]) -> Floats:
    """float32[n, concepts]: the mean probability over the kinds of maps."""
    import torch

    found = []
    with torch.inference_mode():
        for start in range(0, len(maps[0]), _AT_ONCE):
            chances = [torch.sigmoid(model(_inputs(p[start : start + _AT_ONCE]))) for p in maps]
            found.append(torch.stack(chances).mean(dim=0).numpy())
    return np.concatenate(found)
