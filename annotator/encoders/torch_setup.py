"""Settings of torch for this machine: device, precision, threads, a mismatched torchvision.

Importing this module does not import torch, so that what needs no network need not load it.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from annotator.errors import AnnotatorError

if TYPE_CHECKING:
    import torch

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "fp32", "bf16"]
Engine = Literal["auto", "openvino", "torch"]

_OPERATORS_OF_TORCHVISION = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
# What the drivers of GPUs put there: NVIDIA's, the same in WSL, AMD's.
_GPU_FILES = ("dev/nvidia[0-9]*", "dev/dxg", "dev/kfd")
_lock = threading.Lock()
_users = 0
_threads_before = 0

_declared: list[torch.library.Library] = []  # a torch Library is undone when it is collected


def make_torchvision_importable() -> None:
    """Let `import torchvision` succeed beside a torch of another build.

    A CPU-only torch with a torchvision wheel built for CUDA (or the other way round) is a common
    result of `pip install`: torchvision's compiled part does not load, and its import then ends in
    "operator torchvision::nms does not exist" while it describes an operator that was never
    declared. timm and open_clip import torchvision for its Python parts alone, so declaring the two
    operators is enough for them. A torchvision that imports as it is, is left alone.
    """
    if "torchvision" in sys.modules:
        return
    import torch

    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        for name in [m for m in sys.modules if m.split(".")[0] == "torchvision"]:
            del sys.modules[name]  # what the failed import left behind
        library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
        for schema in _OPERATORS_OF_TORCHVISION:
            library.define(schema)  # type: ignore[no-untyped-call]
        _declared.append(library)
        import torchvision  # noqa: F401


def choose_device(device: Device) -> torch.device:
    """The torch device for `device`; "auto" takes CUDA where there is one.

    Raises:
        AnnotatorError: CUDA was asked for and torch sees none.
    """
    import torch

    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise AnnotatorError(
            "--device cuda: torch sees no CUDA device here.",
            f"Use --device cpu, or install torch for CUDA (this one is {torch.__version__}).",
        )
    return torch.device("cuda" if available and device != "cpu" else "cpu")


def on_gpu(device: Device) -> bool:
    """Whether `choose_device` chooses a GPU; torch is asked only where there may be one.

    Raises:
        AnnotatorError: As `choose_device`.
    """
    if device == "cpu" or (device == "auto" and not any(map(_exists, _GPU_FILES))):
        return False
    return choose_device(device).type == "cuda"


def _exists(pattern: str) -> bool:
    return any(Path("/").glob(pattern))


def choose_precision(precision: Precision, device: torch.device) -> Literal["fp32", "bf16"]:
    """The precision for `precision`; "auto" takes bf16 where the hardware multiplies it."""
    import torch

    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp32"
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16" if native else "fp32"


@contextlib.contextmanager
def threads_per_operation(n: int) -> Iterator[None]:
    """Run torch operations with `n` threads each, and restore the setting afterwards.

    The setting is the process's, so of uses that overlap in several threads the last one counts,
    and each of them restores what was there before the first. Where nothing has loaded torch, there
    is nothing to set.
    """
    global _users, _threads_before
    if "torch" not in sys.modules:
        yield
        return
    import torch

    with _lock:
        if _users == 0:
            _threads_before = torch.get_num_threads()
        _users += 1
        torch.set_num_threads(n)
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            torch.set_num_threads(_threads_before)
