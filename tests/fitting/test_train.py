"""Training of one branch on a tiny network."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from annotator.encoders.preprocess import Preprocess
from annotator.errors import AnnotatorError
from annotator.fitting.maps import Trunk, make_maps
from annotator.fitting.recipe import Recipe
from annotator.fitting.train import Epoch, Examples, TrainedBranch, one_cycle, train_branch
from annotator.images.ref import ImageRef
from index import LabelTable

RECIPE = Recipe(epochs=3, batch_size=8, learning_rate=0.01, dropout=0, ema=0)


@pytest.mark.parametrize("warmup", [0.1, 0.3])
def test_the_schedule_is_that_of_torch(warmup: float) -> None:
    steps = 40
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(1))])
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2.0, steps, pct_start=warmup)
    for step in range(steps):
        (group,) = optimizer.param_groups
        rate, momentum = one_cycle(step, steps, warmup)
        assert (2 * rate, momentum) == pytest.approx((group["lr"], group["betas"][0]))
        optimizer.step()
        if step + 1 < steps:
            schedule.step()


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_few_steps_have_a_schedule(steps: int) -> None:
    assert one_cycle(0, steps, 0.1)[0] == 1
    assert all(0 < one_cycle(step, steps, 0.1)[0] <= 1 for step in range(steps))


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Examples:
    """24 noisy pictures, bright or dark ones, whose concepts tell which."""
    folder = tmp_path_factory.mktemp("train")
    preprocess = Preprocess(12, "stretch", "bicubic", (0.5,) * 3, (0.5,) * 3)
    rng = np.random.default_rng(0)
    refs, sets = [], []
    for i in range(24):
        path = folder / f"i{i}.png"
        shades = rng.normal(90 + 60 * (i % 2), 30, (12, 12)).clip(0, 255).astype(np.uint8)
        Image.fromarray(shades).save(path)
        refs.append(ImageRef(path.stem, str(path), path.read_bytes))
        sets.append(["bright" if i % 2 else "dark"])
    trunk = Trunk(None, preprocess, torch.device("cpu"))
    maps = make_maps(
        refs, trunk, lambda frame, _: preprocess(frame)[None], folder, smallest_side=12, workers=1
    )
    labels = np.array([[s == ["bright"], s == ["dark"]] for s in sets])
    return Examples(maps, labels, LabelTable.from_sets(sets))


def train(
    examples: Examples,
    folder: Path,
    recipe: Recipe = RECIPE,
    until: int = 99,
    held_out: int = 8,
    last: int | None = None,
) -> TrainedBranch:
    torch.manual_seed(0)
    branch = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).eval()

    def stop(epoch: Epoch) -> None:
        if epoch.epoch == until:
            raise KeyboardInterrupt

    return train_branch(
        branch, examples, np.arange(16), np.arange(16, 16 + held_out), recipe, seeds=(0, 0),
        device=torch.device("cpu"), checkpoint=folder / "c.pt", label="Branch", on_epoch=stop,
        stop=last,
    )  # fmt: skip


def same(one: TrainedBranch, other: TrainedBranch) -> bool:
    pairs = [(one.tensors[name], other.tensors[name]) for name in one.tensors]
    pairs += [(one.weights, other.weights), (one.biases, other.biases)]
    return all(torch.equal(a, b) for a, b in pairs)


def test_it_learns_and_tells_its_curve(examples: Examples, tmp_path: Path) -> None:
    found = train(examples, tmp_path)
    assert [epoch.epoch for epoch in found.curve] == [1, 2, 3] and found.held_out == 8
    assert found.curve[-1].loss < found.curve[0].loss
    assert found.best.vote_f1 == max(epoch.vote_f1 for epoch in found.curve) > 0.9
    assert found.weights.shape == (8, 2) and found.biases.shape == (2,)
    assert set(found.tensors) == {"0.weight", "0.bias"}


@pytest.mark.parametrize("recipe", [RECIPE, replace(RECIPE, ema=0.8, dropout=0.3, accumulate=2)])
def test_interrupted_it_goes_on_to_the_same(
    examples: Examples, tmp_path: Path, recipe: Recipe
) -> None:
    (tmp_path / "a").mkdir()
    whole = train(examples, tmp_path, recipe)
    with pytest.raises(KeyboardInterrupt):
        train(examples, tmp_path / "a", recipe, until=2)
    again = train(examples, tmp_path / "a", recipe)
    assert same(again, whole) and len(again.curve) == 3
    assert [e.loss for e in again.curve] == [e.loss for e in whole.curve]
    assert same(train(examples, tmp_path / "a", recipe), whole)  # of a finished one


def test_with_no_image_held_out_the_last_epoch_is_kept(examples: Examples, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    whole = train(examples, tmp_path)
    found = train(examples, tmp_path / "a", held_out=0, last=2)
    assert found.best == found.curve[-1] and len(found.curve) == 2 and found.held_out == 0
    # The schedule is that of all three epochs.
    assert [e.loss for e in found.curve] == [e.loss for e in whole.curve[:2]]
    assert all(math.isnan(e.vote_f1) for e in found.curve)
    with pytest.raises(KeyboardInterrupt):
        train(examples, tmp_path / "b", held_out=0, last=2, until=1)
    assert same(train(examples, tmp_path / "b", held_out=0, last=2), found)


def test_batches_add_up(examples: Examples, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    one = train(examples, tmp_path, replace(RECIPE, batch_size=16))
    other = train(examples, tmp_path / "a", replace(RECIPE, batch_size=8, accumulate=2))
    assert other.weights.numpy() == pytest.approx(one.weights.numpy(), abs=1e-3)


def test_it_stops_where_nothing_gets_better(examples: Examples, tmp_path: Path) -> None:
    found = train(examples, tmp_path, replace(RECIPE, epochs=9, patience=2, learning_rate=1e-12))
    assert len(found.curve) == 3 and found.best.epoch == 1


def test_the_average_of_the_weights_is_kept(examples: Examples, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    found = train(examples, tmp_path, replace(RECIPE, epochs=1))
    averaged = train(examples, tmp_path / "a", replace(RECIPE, epochs=1, ema=0.99))
    torch.manual_seed(0)
    first = nn.Conv2d(3, 8, 3).weight.detach()
    moved = [(t.tensors["0.weight"] - first).norm() for t in (averaged, found)]
    assert 0 < moved[0] < moved[1]


def test_a_loss_that_is_not_finite_is_told(examples: Examples, tmp_path: Path) -> None:
    with pytest.raises(AnnotatorError, match=r"epoch \d of 3: the loss is not finite"):
        train(examples, tmp_path, replace(RECIPE, learning_rate=1e38))
