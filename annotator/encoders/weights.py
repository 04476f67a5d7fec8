"""Weights from files: tensors only, never anything that has to be unpickled."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from annotator.errors import AnnotatorError, first_line


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.safetensors` file or of a torch state dict, by name.

    Raises:
        AnnotatorError: The file is missing, or holds anything but tensors.
    """
    if not path.is_file():
        raise AnnotatorError(f"There is no weights file {path}.")
    try:
        if path.suffix == ".safetensors":
            import safetensors.torch

            loaded: Any = safetensors.torch.load_file(path)
        else:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and safetensors raise a dozen types here
        raise AnnotatorError(
            f"{path} could not be read as weights: {first_line(error)}",
            "A checkpoint that needs unpickling is refused: save its state dict, "
            "best as .safetensors.",
        ) from error
    for wrapper in ("state_dict", "model"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
    if not isinstance(loaded, Mapping) or not all(isinstance(t, Tensor) for t in loaded.values()):
        raise AnnotatorError(f"{path} is not a state dict (names with a tensor each).")
    return {name.removeprefix("module."): tensor for name, tensor in loaded.items()}


def load_backbone(model: nn.Module, path: Path) -> None:
    """Load the weights of a network without classifier; one in the file is ignored."""
    tensors, slots = read_weights(path), model.state_dict()
    # Some files leave out this counter, which only training reads.
    slots = {n: t for n, t in slots.items() if n in tensors or "num_batches_tracked" not in n}
    missing = [name for name in slots if name not in tensors]
    wrong = [name for name in slots if name in tensors and tensors[name].shape != slots[name].shape]
    if missing or wrong:
        first = (missing + wrong)[0]
        raise AnnotatorError(
            f"{path} does not fit the network: {len(missing)} tensors are missing and "
            f"{len(wrong)} have another shape, such as {first}.",
            "Check that the weights were saved from this very architecture.",
        )
    model.load_state_dict({name: tensors[name] for name in slots}, strict=False)
