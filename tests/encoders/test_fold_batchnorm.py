"""Folding: the same answers with fewer layers, for any architecture, or nothing at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from annotator.encoders.fold_batchnorm import fold_batchnorm
from annotator.encoders.torch_setup import make_torchvision_importable

EXAMPLE = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def randomise(model: nn.Module) -> nn.Module:
    """Statistics and affine parameters that differ from their initial 0 and 1."""
    generator = torch.Generator().manual_seed(2)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.running_mean, -0.5, 0.5),
                (module.running_var, 0.5, 2.0),
                (module.weight, 0.5, 1.5),
                (module.bias, -0.5, 0.5),
            ):
                if tensor is not None:
                    nn.init.uniform_(tensor, low, high, generator=generator)
    return model.eval()


def fold(model: nn.Module, batch: Tensor = EXAMPLE) -> tuple[int, float]:
    """How many were folded, and the relative change of the answer."""
    with torch.inference_mode():
        before = model(batch)
        folded = fold_batchnorm(model, EXAMPLE)
        return folded, float((model(batch) - before).norm() / before.norm())


# How many of each network's batch normalisations read a convolution's output directly.
@pytest.mark.parametrize(
    ("architecture", "folded", "left"),
    [
        ("tf_efficientnet_lite0", 49, 0),
        ("resnet18", 20, 0),
        ("mobilenetv3_small_050", 34, 0),
        ("densenet121", 59, 62),  # half of them read concatenations
        ("repvgg_a0", 44, 17),  # the rest read a block's input,
        ("convnext_atto", 0, 0),
        ("vit_tiny_patch16_224", 0, 0),
    ],
)
def test_timm_networks(architecture: str, folded: int, left: int) -> None:
    make_torchvision_importable()
    import timm

    size: dict[str, Any] = {"img_size": 64} if architecture.startswith("vit") else {}
    torch.manual_seed(0)
    model = randomise(timm.create_model(architecture, num_classes=0, **size))
    batch = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    assert fold(model, batch) == (folded, pytest.approx(0, abs=1e-4))
    assert sum(isinstance(module, nn.BatchNorm2d) for module in model.modules()) == left


def test_folding_needs_every_number() -> None:
    """Without the bias, the mean or the scale the answer is another one."""
    for attribute in ("running_mean", "running_var", "weight", "bias"):
        model = randomise(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten()))
        with torch.inference_mode():
            before = model(EXAMPLE)
            nn.init.constant_(getattr(model[1], attribute), 1.0)  # type: ignore[index]
            assert fold_batchnorm(model, EXAMPLE) == 1
            assert (model(EXAMPLE) - before).norm() > 1e-2 * before.norm()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("groups", [1, 3])
def test_kinds_of_convolution(bias: bool, affine: bool, groups: int) -> None:
    conv = nn.Conv2d(3, 6, 3, stride=2, padding=1, dilation=2, groups=groups, bias=bias)
    norm = nn.BatchNorm2d(6, affine=affine)
    model = randomise(nn.Sequential(conv, norm, nn.ReLU(), nn.Flatten()))
    assert fold(model) == (1, pytest.approx(0, abs=1e-5))


class Wired(nn.Module):
    """A convolution and its normalisation, put together as `forward` says."""

    def __init__(self, forward: Callable[[Wired, Tensor], Tensor], **norm: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3, **norm)
        self.other = nn.BatchNorm2d(3)
        self._forward = forward

    def forward(self, x: Tensor) -> Tensor:
        return self._forward(self, x).flatten(1)


def _two_readers(m: Wired, x: Tensor) -> Tensor:
    y: Tensor = m.conv(x)
    normed: Tensor = m.norm(y)
    return normed + y


def _two_norms(m: Wired, x: Tensor) -> Tensor:
    y: Tensor = m.conv(x)
    first: Tensor = m.norm(y)
    second: Tensor = m.other(y)
    return first * second


@pytest.mark.parametrize(
    "forward",
    [
        pytest.param(lambda m, x: m.norm(m.conv(m.conv(x))), id="convolution used twice"),
        pytest.param(lambda m, x: m.norm(m.norm(m.conv(x))), id="normalisation used twice"),
        pytest.param(lambda m, x: m.norm(m.conv(x).relu()), id="something between"),
        pytest.param(lambda m, x: m.norm(m.conv(x).relu_()), id="something between, in place"),
        pytest.param(lambda m, x: m.conv(m.norm(x)), id="the other order"),
        pytest.param(lambda m, x: m.conv(x), id="normalisation not used"),
        pytest.param(_two_readers, id="output read twice"),
        pytest.param(_two_norms, id="output normalised twice"),
    ],
)
def test_left_alone(forward: Callable[[Wired, Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    model = randomise(Wired(forward))
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert fold(model) == (0, 0)
    after = model.state_dict()
    assert state.keys() == after.keys()
    assert all(torch.equal(state[name], after[name]) for name in state)


@pytest.mark.parametrize(
    "forward", [lambda m, x: m.norm(m.conv(m.conv(x))), lambda m, x: m.norm(m.norm(m.conv(x)))]
)
def test_a_module_used_twice_costs_no_other_pair(
    forward: Callable[[Wired, Tensor], Tensor],
) -> None:
    model = randomise(nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), Wired(forward)))
    assert fold(model) == (1, pytest.approx(0, abs=1e-5))


def test_normalisation_by_the_batch_is_left_alone() -> None:
    model = randomise(Wired(lambda m, x: m.norm(m.conv(x)), track_running_stats=False))
    assert fold_batchnorm(model, EXAMPLE) == 0


def test_weights_computed_in_each_pass_are_left_alone() -> None:
    """Folding into standardised weights would be undone by the next standardisation."""
    make_torchvision_importable()
    from timm.layers.std_conv import StdConv2d

    torch.manual_seed(0)
    model = randomise(nn.Sequential(StdConv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten()))
    assert fold(model) == (0, 0)


def test_no_hook_is_left_behind() -> None:
    def fails(m: Wired, x: Tensor) -> Tensor:
        m.norm(m.conv(x))
        raise ValueError("by design")

    good, bad = randomise(Wired(lambda m, x: m.norm(m.conv(x)))), randomise(Wired(fails))
    assert fold_batchnorm(good, EXAMPLE) == 1
    with pytest.raises(ValueError, match="by design"):
        fold_batchnorm(bad, EXAMPLE)
    for module in [*good.modules(), *bad.modules()]:
        assert not module._forward_hooks and not module._forward_pre_hooks
