"""What the trunk makes of each image and its copies, computed once and kept on disk."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from annotator.encoders.fold_batchnorm import example_input, fold_batchnorm
from annotator.encoders.local_runner import default_workers
from annotator.encoders.normalise import Normalise
from annotator.encoders.preprocess import Preprocess
from annotator.encoders.torch_setup import threads_per_operation
from annotator.errors import AnnotatorError, ImageError
from annotator.images.decode import decode
from annotator.images.notes import Note
from annotator.images.ordered_map import ordered_map
from annotator.images.ref import ImageRef
from index.cores import usable_cores
from index.progress import track

_MAPS, _LOG = "maps.bin", "maps.jsonl"


class Trunk:
    """The part of a network that is not trained, as a function of pixels.

    Without one, what the branches take are the pixels themselves.

    Args:
        trunk: In evaluation mode; None for none.
        preprocess: Of its input.
        device: Where it runs.
    """

    def __init__(
        self, trunk: nn.Module | None, preprocess: Preprocess, device: torch.device
    ) -> None:
        self.device = device
        self._normalise = Normalise(preprocess, device)
        self._model = trunk
        if trunk is not None:
            trunk.requires_grad_(False)
            fold_batchnorm(trunk, example_input(3, preprocess.size))
            self._model = trunk.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[Any]:
        """uint8[n, size, size, 3] to float16[n, h, w, c], or to the same without a trunk."""
        if self._model is None:
            return pixels
        with torch.inference_mode():
            maps = self._model(self._normalise(torch.from_numpy(pixels)))
            return maps.permute(0, 2, 3, 1).half().cpu().numpy()  # type: ignore[no-any-return]

    def as_input(self, maps: NDArray[Any]) -> Tensor:
        """What was computed, as the input of a branch: float32[n, c, h, w]."""
        read = torch.from_numpy(maps)
        if self._model is None:
            return self._normalise(read)
        return read.to(self.device).permute(0, 3, 1, 2).float()


@dataclass(frozen=True)
class Maps:
    """Maps of images and their copies in a file, which is read in parts.

    Attributes:
        trunk: That made them.
        rows: The images that have maps, as positions among all; image i below is the i-th of them.
        shape: copies and shape of one map: channels last.
        dtype: Of the values.
        path: The file, with the images one after the other.
        failed: Error by location of each image that could not be used.
        notes: By location, what was done to pictures that their files did not ask for.
    """

    trunk: Trunk
    rows: Sequence[int]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    path: Path
    failed: Mapping[str, ImageError]
    notes: Mapping[str, tuple[Note, ...]]

    @property
    def copies(self) -> int:
        return self.shape[0]

    def read(self, images: NDArray[np.int64], copies: NDArray[np.int64]) -> Tensor:
        """One copy of each of n images, as a branch's input: float32[n, c, h, w].

        Read into memory rather than mapped, so that memory stays as small as a batch.
        """
        maps = np.empty((len(images), *self.shape[1:]), self.dtype)
        step = maps[:1].nbytes
        with self.path.open("rb", buffering=0) as file:
            for place, image, copy in zip(maps, images.tolist(), copies.tolist(), strict=True):
                start = (image * self.copies + copy) * step
                if os.preadv(file.fileno(), [place], start) != step:
                    raise AnnotatorError(f"{self.path} was cut short.", "Fit again.")
        return self.trunk.as_input(maps)


def make_maps(
    images: Sequence[ImageRef],
    trunk: Trunk,
    make_copies: Callable[[Image.Image, ImageRef], NDArray[np.uint8]],
    folder: Path,
    *,
    smallest_side: int,
    workers: int | None = None,
    allow_blank: bool = False,
) -> Maps:
    """Compute the maps of images in `folder`, or go on where that was interrupted.

    The copies of an image go through the trunk together, so that its maps do not depend on others.

    Args:
        images: Images to use; one that cannot be used costs no other anything.
        trunk: Makes the maps.
        make_copies: From a decoded picture to uint8[copies, size, size, 3].
        folder: With what was computed before of these very images.
        smallest_side: The smallest side in pixels that an image may be decoded to.
        workers: Number of threads; None for the number of cores.
        allow_blank: Use images that are (nearly) constant, too.

    Raises:
        AnnotatorError: No image could be used, or the disk is full.
    """
    on_gpu = trunk.device.type == "cuda"  # whose work one thread gives it

    def work(row: int) -> tuple[NDArray[Any], tuple[Note, ...]] | ImageError:
        try:
            decoded = decode(images[row].read(), at_least=smallest_side, allow_blank=allow_blank)
            pixels = make_copies(decoded.frames[0], images[row])
            return pixels if on_gpu else trunk(pixels), decoded.notes
        except ImageError as error:
            return error
        except MemoryError:
            return ImageError("not enough memory to decode it", "Scale it down.", "too_large")

    path, log_path = folder / _MAPS, folder / _LOG
    side = smallest_side
    example = trunk(make_copies(Image.new("L", (side, side)), images[0]))
    done = _done(path, log_path, example.nbytes)
    failed: dict[str, ImageError] = {}
    workers = workers or default_workers(images)
    left = [row for row in range(len(images)) if row not in done]
    results = ordered_map(work, left, workers=workers, waiting=4 * workers)
    with (
        path.open("ab") as maps,
        log_path.open("a", encoding="utf-8") as log,
        threads_per_operation(max(1, usable_cores() // workers)),
        contextlib.closing(results),
    ):
        tracked = track(results, total=len(left), label="Preparing images")
        for row, result in zip(left, tracked, strict=True):
            if isinstance(result, ImageError):
                failed[images[row].where] = result
                continue
            made, notes = result
            maps.write(np.ascontiguousarray(trunk(made) if on_gpu else made).data)
            maps.flush()
            log.write(json.dumps({"row": row, "notes": notes}) + "\n")
            log.flush()
            done[row] = notes
    if not done:
        where, error = next(iter(failed.items()))
        raise AnnotatorError(
            f"None of the {len(failed)} images could be used; the first: {where}: {error.message}.",
            error.hint or "Check the images with an image viewer.",
        )
    noted = {images[row].where: notes for row, notes in done.items() if notes}
    return Maps(trunk, list(done), example.shape, example.dtype, path, failed, noted)


def _done(path: Path, log_path: Path, step: int) -> dict[int, tuple[Note, ...]]:
    """The images whose maps are there, with their notes; cuts off what was half written.

    Args:
        path: Maps, of `step` bytes an image.
        log_path: A line for each image, written after its maps.
        step: Bytes of an image's maps.
    """
    lines = log_path.read_bytes().splitlines(keepends=True) if log_path.is_file() else []
    there = path.stat().st_size // step if path.is_file() else 0
    lines = [line for line in lines if line.endswith(b"\n")][:there]
    for file, size in ((path, len(lines) * step), (log_path, sum(map(len, lines)))):
        if file.is_file():
            os.truncate(file, size)
    entries = [json.loads(line) for line in lines]
    return {entry["row"]: tuple(entry["notes"]) for entry in entries}
