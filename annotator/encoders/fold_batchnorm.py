"""Folding of batch normalisation into the preceding convolutions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

# Relative change of the output: 1e-6 is usual, by rounding; a mistake changes all of it.
_MAX_CHANGE = 1e-3


def example_input(channels: int, side: int) -> Tensor:
    """An input to observe a network on, float32[1, channels, side, side]: the same noise always."""
    seeded = torch.Generator().manual_seed(0)
    return torch.rand(1, channels, side, side, generator=seeded)


def fold_batchnorm(model: nn.Module, example: Tensor) -> int:
    """Fold, in place, each 2-d batch normalisation that reads a convolution's output directly.

    In evaluation mode batch normalisation is an affine map with fixed numbers, so the convolution's
    weights can carry it (Jacob et al. 2018, "Quantization and Training of Neural Networks for
    Efficient Integer-Arithmetic-Only Inference", section 3.2). The output stays the same up to
    rounding, and the passes over memory that this saves are a good part of a small CNN's time.

    The pairs of layers are found by observing a forward pass instead of by name, so this works for
    any architecture; a convolution that is used more than once is left alone. What cannot be
    observed (a second reader of the convolution's output, or weights that are recomputed in each
    pass) changes the output: then everything is restored.

    Args:
        model: In evaluation mode, fp32, with one tensor as its output; changed in place.
        example: float32[1, 3, size, size], not constant.

    Returns:
        Number of folded normalisations.
    """
    # Outputs are kept alive during the pass: an id is unique only among living objects.
    outputs: dict[int, tuple[str, Tensor]] = {}
    calls: dict[str, int] = {}
    pairs: dict[str, str] = {}
    handles = []

    def after_convolution(name: str) -> Any:
        def hook(_module: nn.Module, _args: Any, output: Tensor) -> None:
            calls[name] = calls.get(name, 0) + 1
            outputs[id(output)] = (name, output)

        return hook

    def before_norm(name: str) -> Any:
        def hook(_module: nn.Module, args: Any) -> None:
            calls[name] = calls.get(name, 0) + 1
            if id(args[0]) in outputs:
                pairs[name] = outputs[id(args[0])][0]

        return hook

    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            handles.append(module.register_forward_hook(after_convolution(name)))
        elif isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            handles.append(module.register_forward_pre_hook(before_norm(name)))
    try:
        with torch.inference_mode():
            before = model(example)
    finally:
        for handle in handles:
            handle.remove()

    once = {norm: conv for norm, conv in pairs.items() if calls[norm] == 1 and calls[conv] == 1}
    undo = [_fold_one(model, conv_name, norm_name) for norm_name, conv_name in once.items()]
    with torch.inference_mode():
        change = torch.linalg.norm(model(example) - before) / torch.linalg.norm(before)
    if not change <= _MAX_CHANGE:
        for restore in reversed(undo):
            restore()
        return 0
    return len(once)


def _fold_one(model: nn.Module, conv_name: str, norm_name: str) -> Callable[[], None]:
    """Fold one pair; returns the function that undoes it."""
    conv, norm = model.get_submodule(conv_name), model.get_submodule(norm_name)
    assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None and norm.running_var is not None
    weight, bias = conv.weight, conv.bias
    conv.weight, conv.bias = fuse_conv_bn_weights(
        conv.weight,
        conv.bias,
        norm.running_mean,
        norm.running_var,
        norm.eps,
        norm.weight,
        norm.bias,
    )
    # timm's normalisation layers carry the dropout and activation that follow them.
    rest = [
        layer
        for attribute in ("drop", "act")
        if (layer := getattr(norm, attribute, None)) is not None
        and not isinstance(layer, nn.Identity)
    ]
    parent_name, _, leaf = norm_name.rpartition(".")
    parent = model.get_submodule(parent_name)
    setattr(parent, leaf, nn.Sequential(*rest) if rest else nn.Identity())

    def restore() -> None:
        conv.weight, conv.bias = weight, bias
        setattr(parent, leaf, norm)

    return restore
