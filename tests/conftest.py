"""Fixtures that several tests share."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from annotator.embed.embedder import TorchEmbedder

# Threads of OpenMP spin while they wait: on cores that others use too, tests would take several
# times as long. Read once, when torch or FAISS is loaded.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def tiny_embedder() -> TorchEmbedder:
    """A small random convolutional network as an embedder: 32 px, 16 dimensions, fp32, on the CPU.

    Its vectors are deterministic and differ between different images.
    """
    import torch
    from torch import nn

    from annotator.embed.embedder import Encoder, TorchEmbedder
    from annotator.embed.preprocess import Preprocess

    model = nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=2), nn.ReLU(), nn.Conv2d(8, 16, 5, stride=2), nn.Tanh()
    )
    model.append(nn.AdaptiveAvgPool2d(2)).append(nn.Flatten()).append(nn.Linear(64, 16))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3, generator=generator)
    half = (0.5, 0.5, 0.5)
    preprocess = Preprocess(32, "letterbox", "bicubic", half, half)
    return TorchEmbedder("tiny", Encoder(model, preprocess, "tiny"), device="cpu", precision="fp32")
