"""What each position of a picture adds to its vector, where an encoder's pooling is a sum."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from annotator.encoders.preprocess import Box

# By how much of its norm the average of a map may differ from the answer: rounding alone.
_ROUNDING = {torch.float32: 1e-4, torch.bfloat16: 2e-2}
_MOST_PREFIXES = 8  # tokens that are no patches: class, distillation, registers
_TRIES = 8


@dataclass(frozen=True)
class PositionMap:
    """What each position of one of an encoder's maps says of the vector.

    Attributes:
        start: The first number of the vector that it is about.
        parts: float32[h, w, c]: of each position, the numbers of the vector from `start` on.
        box: The part of the picture that the map lies over.
    """

    start: int
    parts: NDArray[np.float32]
    box: Box

    def within(self, start: int, share: float) -> PositionMap:
        """The same for a longer vector, in which this one begins at `start` and is scaled."""
        return replace(self, start=self.start + start, parts=self.parts * np.float32(share))


def total(maps: Sequence[PositionMap], dim: int) -> NDArray[np.float64]:
    """float64[dim]: what all positions of all maps add up to."""
    vector = np.zeros(dim)
    for map_ in maps:
        end = map_.start + map_.parts.shape[2]
        vector[map_.start : end] += map_.parts.sum(axis=(0, 1), dtype=np.float64)
    return vector


def averaged_map(model: nn.Module, batch: Tensor) -> Tensor | None:
    """The map whose average over positions is the network's answer; None if there is none.

    Which layer gives it is observed in a forward pass instead of guessed from names, so it works
    for any architecture that ends in global average pooling.

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
    """What a transformer would answer if each patch's token stood for all; None if it has none.

    The last layer that gives a square of tokens is observed; the rest of the network (norm,
    pooling, projection) then runs with each token in the place of every other. An approximation:
    a class token gathers from the patches by attention, of which this knows nothing.

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
    return side if side > 1 and tokens - side * side <= _MOST_PREFIXES else None


def _each_for_all(tokens: Tensor, side: int) -> Tensor:
    """[1, t, c] to [side * side, t, c]: of each patch, a picture that has only its token."""
    patches = tokens[0, tokens.shape[1] - side * side :]
    return patches[:, None].expand(-1, tokens.shape[1], -1)


@contextmanager
def _watched(model: nn.Module, tell: Callable[[Tensor], None]) -> Iterator[None]:
    """While in it, `tell` is given every tensor that a module of `model` returns, in order."""

    def hook(_module: nn.Module, _args: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            tell(output)

    with _hooked(model, hook):
        yield


@contextmanager
def _replaced(model: nn.Module, call: int, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """While in it, the tensor that `_watched` would tell as number `call` is changed."""
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
