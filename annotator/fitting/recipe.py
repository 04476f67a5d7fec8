"""How a network is fine-tuned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Loss = Literal["cross-entropy", "asymmetric"]

# What is fitted if no encoder is named. Fine-tuning gains by details that the unchanged network
# makes little of, so images are larger than for the default encoder (docs/accuracy.md).
ENCODER = "efficientnet-lite0@320"


@dataclass(frozen=True)
class Recipe:
    """How a branch of a network is fine-tuned.

    Attributes:
        epochs: Most passes over the training images.
        patience: Epochs without a better held-out F1 after which training stops.
        batch_size: Images of a batch.
        accumulate: Batches of a step of the optimiser.
        learning_rate: Highest learning rate of the network (OneCycle schedule, AdamW).
        head_factor: The head's learning rate, in units of the network's.
        warmup: Share of the steps in which the learning rate rises.
        weight_decay: Of AdamW.
        dropout: Of the features that the head reads.
        scale: Norm of the features that the head reads.
        loss: Binary cross-entropy, or the asymmetric loss.
        neighbor_weight: Weight of the soft-neighbour loss beside the other; 0 for none.
        temperature: Of the soft-neighbour loss.
        sharpness: Power of the F1 of two label sets in the targets of the soft-neighbour loss.
        ema: Decay per step of the exponential moving average of the weights; 0 for none.
        freeze: Share of the parameters that is not trained, in networks without a trunk.
        copies: Copies of each image: itself, and augmented ones.
        gamma: Largest logarithm of an augmented copy's gamma.
        rotation: Largest angle of an augmented copy, in degrees.
        area: Smallest share of the picture's area that an augmented copy shows.
        stretch: Largest logarithm of an augmented copy's change of proportions.
        noise: Largest standard deviation of an augmented copy's noise, in grey levels.
        beta: Sharpness of the kernel of the vote by which epochs are compared.
    """

    epochs: int = 6
    patience: int = 2
    batch_size: int = 32
    accumulate: int = 1
    learning_rate: float = 2.5e-4
    head_factor: float = 10.0
    warmup: float = 0.1
    weight_decay: float = 0.05
    dropout: float = 0.2
    scale: float = 16.0
    loss: Loss = "cross-entropy"
    neighbor_weight: float = 1.0
    temperature: float = 0.1
    sharpness: float = 4.0
    ema: float = 0.98
    freeze: float = 0.5
    copies: int = 2
    gamma: float = 0.3
    rotation: float = 10.0
    area: float = 0.75
    stretch: float = 0.1
    noise: float = 2.0
    beta: float = 12.0
