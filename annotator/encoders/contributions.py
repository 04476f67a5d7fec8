"""Contributions of the positions or patches of an image to its vector.

Exact where the encoder ends in average pooling; an approximation for transformers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from annotator.encoders.preprocess import Box

# Largest relative difference between the average of a map and the output: rounding alone.
_ROUNDING = {torch.float32: 1e-4, torch.bfloat16: 2e-2}
_MAX_PREFIX_TOKENS = 8  # class, distillation and register tokens
_TRIES = 8


@dataclass(frozen=True)
class ContributionMap:
    """Contributions of the positions of one feature map to a slice of the vector.

    Attributes:
        start: First component of the slice.
        values: float32[h, w, c]: contribution of each position to components start to start + c.
        box: The part of the picture that the map covers.
    """

    start: int
    values: NDArray[np.float32]
    box: Box

    def within(self, start: int, scale: float) -> ContributionMap:
        """The same for a longer vector, which holds this one from `start` on, times `scale`."""
        return replace(self, start=self.start + start, values=self.values * np.float32(scale))


def pooled_map(model: nn.Module, batch: Tensor) -> Tensor | None:
    """The feature map whose global average is the network's output; None if there is none.

    The layer is found by observing a forward pass instead of by name, so this works for any
    architecture that ends in global average pooling.

    Args:
        model: float[1, 3, size, size] to float[1, dim].
        batch: One image.

    Returns:
        float32[h, w, dim].
    """
    outputs: list[Tensor] = []
    with _watched(model, lambda output: outputs.append(output)):
        answer = model(batch)
    tolerance = _ROUNDING[answer.dtype] * torch.linalg.norm(answer.float())
    for output in reversed(outputs):
        if output.ndim != 4 or output.shape[0] != 1:
            continue
        for channels in (1, 3):  # first, or last
            if output.shape[channels] == answer.shape[1]:
                map_ = output[0].float().movedim(channels - 1, 2)
                if map_[..., 0].numel() == 1:  # it is averaged already
                    continue
                if torch.linalg.norm(map_.mean(dim=(0, 1)) - answer[0].float()) <= tolerance:
                    return map_
    return None


def patch_vectors(model: nn.Module, batch: Tensor) -> Tensor | None:
    """The output of a transformer for each patch token alone; None if there are no patches.

    The last layer whose output is a square of tokens is observed; the rest of the network (norm,
    pooling, projection) then runs with all tokens replaced by one of them, for each in turn. An
    approximation: it disregards the attention by which a class token gathers from the patches.

    Args:
        model: float[1, 3, size, size] to float[1, dim].
        batch: One image.

    Returns:
        float32[g, g, dim].
    """
    shapes: list[tuple[int, ...]] = []
    with _watched(model, lambda output: shapes.append(tuple(output.shape))):
        answer = model(batch)
    of_tokens = [
        i for i, shape in enumerate(shapes) if len(shape) == 3 and _side(shape[1]) is not None
    ]
    for call in reversed(of_tokens[-_TRIES:]):
        side = _side(shapes[call][1])
        assert side is not None
        with _replaced(model, call, lambda tokens, side=side: _each_for_all(tokens, side)):  # type: ignore[misc]
            try:
                answers = model(batch)
            except (RuntimeError, ValueError):  # what follows holds on to the batch's size
                continue
        if answers.shape == (side * side, answer.shape[1]):
            return answers.float().reshape(side, side, -1)  # type: ignore[no-any-return]
    return None


def _side(tokens: int) -> int | None:
    """Side of the square of patches among so many tokens."""
    side = math.isqrt(tokens)
    return side if side > 1 and tokens - side * side <= _MAX_PREFIX_TOKENS else None


def _each_for_all(tokens: Tensor, side: int) -> Tensor:
    """[1, t, c] to [side * side, t, c]: for each patch, a sequence of copies of its token."""
    patches = tokens[0, tokens.shape[1] - side * side :]
    return patches[:, None].expand(-1, tokens.shape[1], -1)


@contextmanager
def _watched(model: nn.Module, tell: Callable[[Tensor], None]) -> Iterator[None]:
    """Within the context, call `tell` with each tensor that a module of `model` returns."""

    def hook(_module: nn.Module, _args: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            tell(output)

    with _hooked(model, hook):
        yield


@contextmanager
def _replaced(model: nn.Module, call: int, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Within the context, change the tensor that `_watched` would tell as number `call`."""
    calls = iter(range(call + 1))

    def hook(_module: nn.Module, _args: Any, output: Any) -> Tensor | None:
        if isinstance(output, Tensor) and next(calls, None) == call:
            return change(output)
        return None

    with _hooked(model, hook):
        yield


@contextmanager
def _hooked(model: nn.Module, hook: Any) -> Iterator[None]:
    handles = [module.register_forward_hook(hook) for module in model.modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
