"""Losses against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from annotator.fitting.loss import asymmetric, loss_of, soft_neighbors
from annotator.fitting.recipe import Recipe


def batch(n: int = 7) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features, log-odds and labels; the last image shares no concept."""
    generator = torch.Generator().manual_seed(0)
    features = nn.functional.normalize(torch.randn(n, 5, generator=generator), dim=1)
    labels = (torch.rand(n, 4, generator=generator) < 0.5).float()
    labels[-1] = torch.tensor([0.0, 0, 0, 1])
    labels[:-1, 3] = 0
    labels[:-1, 0] = 1
    return features, 3 * torch.randn(n, 4, generator=generator), labels


def test_asymmetric() -> None:
    _, log_odds, labels = batch()
    p = torch.sigmoid(log_odds).double().numpy()
    y, shifted = labels.numpy(), np.maximum(p - 0.05, 0)
    expected = -(y * np.log(p) + (1 - y) * shifted**4 * np.log(1 - shifted)).sum(1).mean()
    assert float(asymmetric(log_odds, labels)) == pytest.approx(expected, rel=1e-5)
    assert torch.isfinite(asymmetric(torch.tensor([[200.0, -200.0]]), torch.tensor([[0.0, 1.0]])))


def test_soft_neighbors() -> None:
    features, _, labels = batch()
    sets = [{j for j in range(4) if row[j]} for row in labels.tolist()]
    losses = []
    for i, own in enumerate(sets):
        others = [j for j in range(len(sets)) if j != i]
        f1 = np.array([2 * len(own & sets[j]) / (len(own) + len(sets[j])) for j in others]) ** 4
        near = np.exp([float(features[i] @ features[j]) / 0.1 for j in others])
        if f1.sum():
            losses.append(-(f1 / f1.sum() * np.log(near / near.sum())).sum())
    assert len(losses) == len(sets) - 1
    found = soft_neighbors(features, labels, 0.1, 4)
    assert float(found) == pytest.approx(np.mean(losses), rel=1e-5)


@pytest.mark.parametrize("n", [1, 2])
def test_images_without_any_that_agree_have_no_gradient(n: int) -> None:
    features, _, labels = batch()
    features = features[-n:].clone().requires_grad_(True)
    soft_neighbors(features, labels[-n:], 0.1, 4).backward()  # type: ignore[no-untyped-call]
    assert features.grad is not None and not features.grad.any()


def test_the_recipe_chooses() -> None:
    features, log_odds, labels = batch()
    plain = nn.functional.binary_cross_entropy_with_logits(log_odds, labels) * labels.shape[1]
    assert loss_of(features, log_odds, labels, Recipe(neighbor_weight=0)) == pytest.approx(plain)
    both = loss_of(features, log_odds, labels, Recipe(neighbor_weight=0.5))
    assert both == pytest.approx(plain + 0.5 * soft_neighbors(features, labels, 0.1, 4))
    other = loss_of(features, log_odds, labels, Recipe(loss="asymmetric", neighbor_weight=0))
    assert other == asymmetric(log_odds, labels)
