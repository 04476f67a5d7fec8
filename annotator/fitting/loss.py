"""Losses of multi-label classification, and of neighbourhoods that share concepts."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from annotator.fitting.recipe import Recipe

_FOCUS, _MARGIN = 4, 0.05  # of negatives, as in the paper
_NEVER = -1e9  # instead of -inf, whose gradient is not a number


def loss_of(features: Tensor, log_odds: Tensor, labels: Tensor, recipe: Recipe) -> Tensor:
    """The loss of a batch, in nats an image.

    Cross-entropies of the concepts are summed, not averaged: under independent concepts the sum is
    that of the label set, and what it weighs beside the soft-neighbour loss, which is in nats, too,
    does not depend on how many concepts a collection has.

    Args:
        features: float32[n, length], of unit norm.
        log_odds: float32[n, c].
        labels: float32[n, c], 0 or 1.
        recipe: Which losses.
    """
    if recipe.loss == "asymmetric":
        loss = asymmetric(log_odds, labels)
    else:
        loss = functional.binary_cross_entropy_with_logits(log_odds, labels, reduction="sum")
        loss = loss / len(labels)
    if recipe.neighbor_weight:
        near = soft_neighbors(features, labels, recipe.temperature, recipe.sharpness)
        loss = loss + recipe.neighbor_weight * near
    return loss


def asymmetric(log_odds: Tensor, labels: Tensor) -> Tensor:
    """The asymmetric loss, which takes less notice of easy negatives.

    Ridnik et al. 2021, "Asymmetric Loss For Multi-Label Classification".
    """
    negative = (torch.sigmoid(log_odds) - _MARGIN).clamp(min=0)
    of_negatives = negative**_FOCUS * torch.log1p(-negative)
    of_concepts = labels * functional.logsigmoid(log_odds) + (1 - labels) * of_negatives
    return -of_concepts.sum() / len(labels)


def soft_neighbors(
    features: Tensor, labels: Tensor, temperature: float, sharpness: float
) -> Tensor:
    """Cross-entropy between how near images are and how much their label sets agree.

    Each image's distribution over the others of the batch is the softmax of its similarities to
    them; the target is proportional to the F1 of the two label sets, to the power of `sharpness`.
    It is neighbourhood components analysis (Goldberger et al. 2004) with graded agreement, as the
    vote counts it. An image that agrees with none of the others has no target and no loss.

    Args:
        features: float32[n, length], of unit norm.
        labels: float32[n, c], 0 or 1.
        temperature: Similarities are divided by it.
        sharpness: A larger one asks for neighbours that agree in all concepts.
    """
    n = len(features)
    itself = torch.eye(n, dtype=torch.bool, device=features.device)
    sizes = labels.sum(1)
    f1 = 2 * (labels @ labels.T) / (sizes[:, None] + sizes).clamp(min=1)
    target = (f1**sharpness).masked_fill(itself, 0)
    total = target.sum(1, keepdim=True)
    similarities = (features @ features.T / temperature).masked_fill(itself, _NEVER)
    logs = functional.log_softmax(similarities, dim=1).masked_fill(itself, 0)
    agree = total[:, 0] > 0
    losses = -(target / total.clamp(min=1e-6) * logs).sum(1)
    return torch.where(agree, losses, 0).sum() / agree.sum().clamp(min=1)
