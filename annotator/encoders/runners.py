"""Runners, which embed many images: in this process, or in the workers of a Ray cluster."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Protocol

from annotator.errors import AnnotatorError
from index.distribution import pip_install

if TYPE_CHECKING:
    from annotator.encoders.cache import EmbeddingCache
    from annotator.encoders.embedder import Embedder
    from annotator.encoders.local_runner import Embedded
    from annotator.encoders.torch_setup import Device
    from annotator.images.ref import ImageRef


class Runner(Protocol):
    """Interface of runners; see `annotator.encoders.local_runner.embed_images`."""

    def __call__(
        self,
        refs: Sequence[ImageRef],
        embedder: Embedder,
        *,
        cache: EmbeddingCache | None = None,
        batch_size: int | None = None,
        workers: int | None = None,
    ) -> Generator[Embedded, None, None]:
        """Embed `refs`, yielding results in their order; closing the generator ends the run."""
        ...


def make_runner(
    name: str = "local",
    *,
    address: str | None = None,
    device: Device = "auto",
    allow_blank: bool = False,
) -> Runner:
    """Make a runner by name.

    Args:
        name: "local" or "ray".
        address: Of a running Ray cluster ("auto" or HOST:PORT); None starts one on this machine.
        device: Where Ray's workers encode: "auto" takes the cluster's GPUs where it has any.
        allow_blank: Embed images that are (nearly) constant, too, instead of refusing them.

    Raises:
        AnnotatorError: There is no such runner, or its packages are not installed.
    """
    if name == "local":
        from annotator.encoders.local_runner import embed_images

        return partial(embed_images, allow_blank=allow_blank)
    if name != "ray":
        raise AnnotatorError(f"Unknown runner {name!r}.", "Use local or ray.")
    try:
        import ray.data  # noqa: F401
    except ImportError as error:
        raise AnnotatorError(
            f"The Ray runner needs the package {error.name or 'ray'}, which is not installed.",
            pip_install("ray"),
        ) from error
    from annotator.encoders.ray_runner import RayRunner

    return RayRunner(address, device, allow_blank=allow_blank)
