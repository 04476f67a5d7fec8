"""The worker of the Ray runner: references to images in, vectors out."""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from annotator.encoders.embedder import Embedder
from annotator.encoders.fingerprint import Fingerprint
from annotator.encoders.local_runner import embed_batch
from annotator.encoders.registry import make_embedder
from annotator.encoders.torch_setup import Device, Engine, threads_per_operation
from annotator.errors import AnnotatorError, ImageError
from annotator.images.frames import Frames
from annotator.images.notes import Note
from annotator.images.ref import ImageRef


@dataclass(frozen=True)
class EncoderSpec:
    """Specification from which a worker loads the driver's encoder.

    Attributes:
        name: As for `make_embedder`.
        fingerprint: The driver's; a worker's must be the same.
        device: Of the worker.
        batch_size: Images that are encoded at once.
        threads: Of one torch operation.
        allow_blank: As for `embed_images`.
        folder: The driver's working folder, to which paths are relative.
        attempts: At a batch, before its images are taken to kill workers.
        engine: The driver's, which a worker on a CPU must have, too.
    """

    name: str
    fingerprint: Fingerprint
    device: Device
    batch_size: int
    threads: int
    allow_blank: bool
    folder: str
    attempts: int = 4
    engine: Engine = "auto"

    def make(self) -> Embedder:
        """Load the encoder.

        Raises:
            AnnotatorError: It cannot be loaded here, or is not the driver's.
        """
        with contextlib.suppress(OSError):  # absolute paths and object stores need no folder
            os.chdir(self.folder)
        made = make_embedder(
            self.name,
            device=self.device,
            precision=self.fingerprint.asked_precision,
            frames=cast(Frames, self.fingerprint.frames),
            engine=self.engine,
            recorded=self.fingerprint,
        )
        differences = made.fingerprint.differences(self.fingerprint)
        if differences:
            raise AnnotatorError(
                f"The encoder {self.name} is another one on {socket.gethostname()} than here: "
                f"{'; '.join(differences)}.",
                "Install the same packages and put the same weights on every node.",
            )
        return made


class CachedKeys:
    """Stand-in for the cache, which only the driver opens: cached images are not encoded.

    Args:
        joined: Content keys of 32 bytes each, one after another.
    """

    def __init__(self, joined: bytes) -> None:
        self._keys = frozenset(joined[i : i + 32] for i in range(0, len(joined), 32))

    def get(self, content: bytes, dim: int | None = None) -> NDArray[np.float32] | None:
        """An empty vector where the driver has the vector, which it checks."""
        return np.zeros(0, np.float32) if content in self._keys else None

    def notes(self, content: bytes) -> tuple[Note, ...]:
        """None: the driver has them."""
        return ()

    def content_of(self, name: str) -> bytes | None:
        """None: workers know contents alone."""
        return None

    def remember(self, contents: Mapping[str, bytes]) -> None:
        """Does nothing."""

    def put(
        self,
        items: Iterable[tuple[bytes, NDArray[np.float32]]],
        notes: Mapping[bytes, tuple[Note, ...]],
    ) -> None:
        """Does nothing: the driver stores the vectors and notes."""


class EncodingWorker:
    """An actor of Ray Data's pool. Errors that end the run are returned as a row, not raised.

    Args:
        spec: Of the encoder.
        known: Reference to the content keys that `CachedKeys` takes.
        attempts: Handle of the actor that counts how often each batch was begun.
    """

    def __init__(self, spec: EncoderSpec, known: Any, attempts: Any) -> None:
        import ray

        self._spec = spec
        self._attempts = attempts
        self._known = CachedKeys(ray.get(known))
        self._failed: AnnotatorError | None = None
        try:
            self._embedder = spec.make()
        except AnnotatorError as error:
            self._failed = error

    def __call__(self, batches: Any) -> Any:
        """A pyarrow table of batches (`batch_row`) to one of a row per image (`result_rows`).

        A row has the image's ``content`` key; its ``vector``, empty where there is none or the
        driver has it; ``notes`` on its picture; the ``error`` of an unusable image, with its
        ``hint`` and ``code``; or the ``fatal`` error of the batch.
        """
        rows: list[dict[str, Any]] = []
        try:
            if self._failed is not None:
                raise self._failed
            with threads_per_operation(self._spec.threads):
                for batch in batches.to_pylist():
                    rows += self._encode(**batch)
        except AnnotatorError as error:
            rows.append(_row(fatal=f"{error.message}\n{error.hint}"))
        return result_rows(rows)

    def _encode(self, place: int, where: str, reads: bytes) -> list[dict[str, Any]]:
        import ray

        most = self._spec.attempts
        if ray.get(self._attempts.begin.remote(place)) > most:
            raise AnnotatorError(
                f"{most} of Ray's workers died, each with the same images: {where}.",
                "One of them may end the decoder: leave them out. Or there is not enough memory: "
                "try fewer --workers.",
            )
        # From the driver, over Ray, which moves everything this way; never from a file.
        refs = [ImageRef("", "", read) for read in pickle.loads(reads)]
        results = embed_batch(
            refs,
            self._embedder,
            self._known,
            self._spec.batch_size,
            allow_blank=self._spec.allow_blank,
        )
        self._attempts.done.remote(place)
        return [
            _row(
                content=result.content,
                vector=b"" if result.vector is None else result.vector.astype("<f4").tobytes(),
                notes=" ".join(result.notes),
                error=result.error,
            )
            for result in results
        ]


def batch_row(place: int, refs: Sequence[ImageRef]) -> dict[str, Any]:
    """One batch as a row for a worker.

    Args:
        place: Of its first image among all.
        refs: Its images, of which the readers are sent, not the bytes.
    """
    from ray import cloudpickle

    where = refs[0].where + (f" to {refs[-1].where}" if len(refs) > 1 else "")
    reads = cloudpickle.dumps([ref.read for ref in refs])  # type: ignore[no-untyped-call]
    return {"place": place, "where": where, "reads": reads}


def result_rows(rows: Sequence[dict[str, Any]]) -> Any:
    """Results as a pyarrow table."""
    import pyarrow as pa

    columns = {"content": pa.binary(), "vector": pa.binary()}
    texts = ("notes", "error", "hint", "code", "fatal")
    columns |= dict.fromkeys(texts, pa.string())
    return pa.Table.from_pylist(list(rows), schema=pa.schema(list(columns.items())))


def _row(
    *,
    content: bytes = b"",
    vector: bytes = b"",
    notes: str = "",
    error: ImageError | None = None,
    fatal: str | None = None,
) -> dict[str, Any]:
    row: dict[str, Any] = {"content": content, "vector": vector, "notes": notes, "fatal": fatal}
    given = (None, None, None) if error is None else (error.message, error.hint, error.code)
    return row | dict(zip(("error", "hint", "code"), given, strict=True))
