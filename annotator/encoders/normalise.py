"""From the pixels that an encoder was prepared to the numbers that its network takes."""

from __future__ import annotations

import torch
from torch import Tensor

from annotator.encoders.preprocess import Preprocess


class Normalise:
    """Pixels of a `Preprocess` as a network's input: (pixel / 255 - mean) / std.

    Args:
        preprocess: Whose mean and std are used.
        device: Where the network is.
    """

    def __init__(self, preprocess: Preprocess, device: torch.device) -> None:
        mean, std = preprocess.mean, preprocess.std
        scale, shift = [255.0 * s for s in std], [m / s for m, s in zip(mean, std, strict=True)]
        self._scale = (1 / torch.tensor(scale, device=device)).view(1, 3, 1, 1)
        self._shift = torch.tensor(shift, device=device).view(1, 3, 1, 1)
        self._device = device

    def __call__(self, pixels: Tensor) -> Tensor:
        """uint8[n, size, size, 3] to float32[n, 3, size, size], channels last in memory."""
        # NHWC bytes seen as NCHW are channels-last already: nothing is copied here.
        batch = pixels.to(self._device).permute(0, 3, 1, 2)
        return batch.float() * self._scale - self._shift
