"""Embedders that run a network by OpenVINO, the engine of Intel's for CPUs (AMD's as well).

Importing and compiling it takes a fraction of a second where torch and timm take three, and it
encodes faster (docs/encoder.md).
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from annotator.encoders.allocator import keep_freed_memory
from annotator.encoders.converted import Converted, kept
from annotator.encoders.embedder import NO_VECTOR_HINT, Embedder, check_pixels, to_unit_norm
from annotator.encoders.preprocess import Preprocess
from annotator.errors import AnnotatorError
from index.cores import usable_cores

if TYPE_CHECKING:
    from PIL import Image

    from annotator.encoders.contributions import ContributionMap
    from annotator.encoders.fingerprint import Fingerprint
    from annotator.images.frames import Frames

MOST_STREAMS = 16  # as many as there are threads of a runner
_HINTS = {"fp32": "f32", "bf16": "bf16"}


def has_openvino() -> bool:
    """Whether OpenVINO is installed; it is not imported to find out."""
    return importlib.util.find_spec("openvino") is not None


def load_openvino() -> Any:
    """The module `openvino`, which is kept from reporting its use to its maker.

    It does so at its import and at each conversion, where `openvino_telemetry` can be imported.
    """
    sys.modules.setdefault("openvino_telemetry", cast(Any, None))  # its import fails, as if absent
    import openvino

    return openvino


@functools.cache
def core() -> Any:
    """OpenVINO's core, of which a process needs one."""
    return load_openvino().Core()


def runs_in(precision: str) -> bool:
    """Whether OpenVINO computes in this precision on this CPU: in bf16 only where it is native."""
    return precision == "fp32" or (
        precision == "bf16" and "BF16" in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    )


class OpenVinoEmbedder:
    """An `Embedder` that runs a converted network on the CPU.

    An image's vector is the same to the last bit in any batch. Each of the runner's threads has a
    stream of the network to itself, as with torch each has its own core.

    Args:
        name: The string that chose the encoder.
        converted: The network; its fingerprint says in which precision it runs.
        in_torch: Makes the same encoder in torch, of which alone it can be said what each position
            of a picture contributes.

    Raises:
        AnnotatorError: OpenVINO cannot read or compile the network.
    """

    def __init__(self, name: str, converted: Converted, in_torch: Callable[[], Embedder]) -> None:
        keep_freed_memory()
        self.name = name
        self.engine: str | None = "openvino"
        self.fingerprint = converted.fingerprint
        self.dim, self.blocks = converted.fingerprint.dim, converted.blocks
        self.fitted = converted.fitted
        self.frames = cast("Frames", converted.fingerprint.frames)
        self.batch_size = 8  # its maps stay in the caches of a core
        self._preprocess = Preprocess.from_dict(converted.fingerprint.preprocess)
        self.image_size = self._preprocess.smallest_side
        self._in_torch = functools.cache(lambda: self._checked(in_torch()))
        cores = usable_cores()
        settings = {
            "INFERENCE_PRECISION_HINT": _HINTS[converted.fingerprint.precision],
            "NUM_STREAMS": min(cores, MOST_STREAMS),
            "INFERENCE_NUM_THREADS": cores,
            "ENABLE_CPU_PINNING": False,  # others use these cores, too
            "ENABLE_HYPER_THREADING": True,
        }
        try:
            weights = load_openvino().Tensor(converted.weights)
            network = core().read_model(converted.network, weights)
            self._network = core().compile_model(network, "CPU", settings)
        except RuntimeError as error:
            raise AnnotatorError(
                f"OpenVINO cannot run the encoder {name}: {_reason(error)}",
                "Use --engine torch.",
            ) from error
        self._idle: deque[Any] = deque()  # requests; one is of use to one thread at a time

    def prepare(self, frames: Sequence[Image.Image]) -> NDArray[np.uint8]:
        return self._preprocess.stack(frames)

    def embed(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `Embedder.embed`.

        Raises:
            AnnotatorError: The network returned a vector that is zero or not finite.
            ValueError: `pixels` has another shape or dtype.
        """
        check_pixels(pixels, self.name, self._preprocess.size)
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._network.create_infer_request()
        found = request.infer({0: np.ascontiguousarray(pixels)}, share_inputs=True)
        vectors: NDArray[np.float32] = found[0]
        self._idle.append(request)
        return to_unit_norm(vectors, f"The encoder {self.name}", NO_VECTOR_HINT)

    def position_contributions(self, frame: Image.Image) -> list[ContributionMap] | None:
        return self._in_torch().position_contributions(frame)

    def patch_contributions(self, frame: Image.Image) -> list[ContributionMap] | None:
        return self._in_torch().patch_contributions(frame)

    def _checked(self, other: Embedder) -> Embedder:
        if differences := other.fingerprint.differences(self.fingerprint):
            raise AnnotatorError(
                f"The encoder {self.name} is another one now: {'; '.join(differences)}.",
                "Put its former weights back, or build the index again.",
            )
        return other


def kept_embedder(
    name: str, fingerprint: Fingerprint, in_torch: Callable[[], Embedder]
) -> OpenVinoEmbedder | None:
    """The embedder of what is kept of an encoder.

    None where nothing is, or what another version of OpenVINO has kept cannot be read by this one.

    Args:
        name: As for `OpenVinoEmbedder`.
        fingerprint: Of the encoder.
        in_torch: As for `OpenVinoEmbedder`.
    """
    converted = kept(fingerprint)
    if converted is None:
        return None
    try:
        return OpenVinoEmbedder(name, converted, in_torch)
    except AnnotatorError:
        return None


def _reason(error: RuntimeError) -> str:
    """The last line of what OpenVINO says, which comes after where in its sources it was."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
