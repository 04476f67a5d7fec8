"""What a method gets: images, label sets (of the training side alone), groups, shared features."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from annotator.encoders.cache import EmbeddingCache
from annotator.encoders.local_runner import embed_images
from annotator.encoders.registry import make_embedder
from annotator.errors import AnnotatorError
from annotator.images.decode import decode
from annotator.images.ref import ImageRef
from index.cores import usable_cores
from index.progress import track

T = TypeVar("T")
LabelSet = frozenset[str]

_TIMED = 256  # images
_UNKNOWN = frozenset({"", "na", "n/a", "nan", "none", "null"})


class Method(Protocol):
    """A way from labelled images to the concepts of new ones.

    Attributes:
        name: As the table shows it.
        chosen: What `fit` chose on the training side, as plain values for JSON.
    """

    name: str
    chosen: dict[str, Any]

    def fit(self, train: Data) -> None:
        """Train, tune, build: whatever is done once."""
        ...

    def predict(self, test: Data) -> list[set[str]]:
        """The CUIs of each image of `test`, in its order."""
        ...


class HiddenLabels(RuntimeError):
    """A method asked for the labels of the side that it is tested on."""


_gpu_seconds = 0.0  # of this process so far


@contextmanager
def maybe_on_gpu() -> Iterator[None]:
    """Count the time of a block as the GPU's, if torch sees one: at most too much, never less."""
    import torch

    global _gpu_seconds
    start = time.perf_counter()
    yield
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        _gpu_seconds += time.perf_counter() - start


@dataclass(frozen=True)
class Cost:
    """What work takes.

    Attributes:
        seconds: On the clock.
        cpu_seconds: Of all threads, and of processes that have ended.
        gpu_seconds: On the clock, of steps that run on a GPU.
    """

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    gpu_seconds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def __mul__(self, factor: float) -> Cost:
        return Cost(*(value * factor for value in astuple(self)))

    def __sub__(self, other: Cost) -> Cost:
        return self + other * -1

    @classmethod
    def now(cls) -> Cost:
        """A point in time; the difference of two is a cost."""
        return cls(time.perf_counter(), sum(os.times()[:4]), _gpu_seconds)


class Pictures:
    """The images of one side, with their vectors and pixels.

    Args:
        refs: n images that can be decoded.
        vectors: float32[n, dim] of unit norm.
        cost: Of computing the vectors.
        folder: Where decoded pixels are kept.
    """

    def __init__(
        self, refs: Sequence[ImageRef], vectors: NDArray[np.float32], cost: Cost, folder: Path
    ) -> None:
        self.refs, self.vectors, self.cost = tuple(refs), vectors, cost
        self._folder = folder
        self._pixels: dict[int, tuple[NDArray[np.uint8], Cost]] = {}

    def pixels(self, size: int) -> tuple[NDArray[np.uint8], Cost]:
        """uint8[n, size, size, 3], mapped from disk, each image stretched to a square; the cost."""
        if size not in self._pixels:
            key = digest([ref.id for ref in self.refs], [ref.where for ref in self.refs])
            path = self._folder / f"pixels-{size}-{key}.npy"
            done = path.with_suffix(".json")
            if not done.exists():
                done.write_text(json.dumps(vars(self._decode(path, size))))
            self._pixels[size] = np.load(path, mmap_mode="r"), Cost(**json.loads(done.read_text()))
        return self._pixels[size]

    def _decode(self, path: Path, size: int) -> Cost:
        start = Cost.now()
        path.parent.mkdir(parents=True, exist_ok=True)
        shape = (len(self.refs), size, size, 3)
        table = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)

        def put(row: int) -> None:
            picture = decode(self.refs[row].read(), at_least=size).frames[0].convert("RGB")
            table[row] = np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC))

        with ThreadPoolExecutor(usable_cores()) as pool:
            decoded = pool.map(put, range(len(self.refs)))
            list(track(decoded, total=len(self.refs), label=f"Decoding to {size} px"))
        table.flush()
        return Cost.now() - start


class Data:
    """Some images of one side.

    Vectors, decoded pixels and trained networks are kept and shared, but every method is charged
    for what it uses as if it had run alone: `cost_of`.

    Args:
        pictures: All images of the side.
        groups: int64[n]: images with the same number are of one patient or study.
        labels: Their label sets, or None to hide them from the methods.
        rows: int64[m], which of them; None for all.

    Attributes:
        side: n images, of the whole side.
        rows: int64[m], which of them are meant.
        images: m images.
        ids: m image ids.
        groups: int64[m].
    """

    def __init__(
        self,
        pictures: Pictures,
        groups: NDArray[np.int64],
        labels: Sequence[LabelSet] | None,
        rows: NDArray[np.int64] | None = None,
    ) -> None:
        self.rows = np.arange(len(pictures.refs)) if rows is None else rows
        self._pictures, self._all_groups, self._all_labels = pictures, groups, labels
        self._charged: dict[str, Cost] = {}
        self.side = pictures.refs
        self.images = tuple(pictures.refs[i] for i in self.rows)
        self.ids = tuple(ref.id for ref in self.images)
        self.groups = groups[self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def labels(self) -> tuple[LabelSet, ...]:
        """The label set of each image.

        Raises:
            HiddenLabels: This is the side that is tested on.
        """
        if self._all_labels is None:
            raise HiddenLabels("the labels of the test side are not for the methods to see")
        return tuple(self._all_labels[i] for i in self.rows)

    def take(self, rows: NDArray[np.int64]) -> Data:
        """Some of these images, by position."""
        return Data(self._pictures, self._all_groups, self._all_labels, self.rows[rows])

    def vectors(self) -> NDArray[np.float32]:
        """float32[m, dim]: the product's embeddings, of unit norm."""
        self.charge("vectors", self._pictures.cost * self.share)
        return np.ascontiguousarray(self._pictures.vectors[self.rows])

    def pixels(self, size: int, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """uint8[len(rows), size, size, 3]: decoded images by position, stretched to squares."""
        start = Cost.now()
        table, cost = self._pictures.pixels(size)
        self.charge(f"pixels {size}", cost * self.share - (Cost.now() - start))
        return np.asarray(table[self.rows[rows]])

    def charge(self, key: str, cost: Cost) -> None:
        """Charge for work that an earlier method or run has done, once for each key."""
        self._charged.setdefault(key, cost)

    def once(self, path: Path, work: Callable[[], object], share: float = 1.0) -> None:
        """Do work that leaves `path` behind, unless a run before has; charge its cost either way.

        Args:
            path: Its name says all that the work depends on. The cost is kept beside it, in a .json
                file, without which the work counts as not done.
            work: Charges of its own are not kept, so what it shares with others is made before.
            share: The part of the cost that is charged.
        """
        done, start = path.with_suffix(".json"), Cost.now()
        if not done.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            work()
            done.write_text(json.dumps(vars(Cost.now() - start)))
        cost = Cost(**json.loads(done.read_text()))
        self.charge(path.name, cost * share - (Cost.now() - start))

    def cost_of(self, work: Callable[[], T]) -> tuple[T, Cost]:
        """Do `work`; its result and its cost, with what was charged on the way."""
        self._charged = {}
        start = Cost.now()
        result = work()
        return result, sum(self._charged.values(), Cost.now() - start)

    @property
    def share(self) -> float:
        """The part of the side that these images are."""
        return len(self) / len(self._pictures.refs)


def known_group(name: str) -> str:
    """A group's name, or an empty string for the usual words for "not known".

    Taking all images without a patient id for one patient would leave most of a collection out at
    once.
    """
    return "" if name.strip().casefold() in _UNKNOWN else name.strip()


def embed_side(
    refs: Sequence[ImageRef], embedder_name: str, folder: Path, label: str
) -> tuple[Pictures, dict[str, str]]:
    """Embed the images of a side, with a cache in `folder`.

    Returns:
        The images that can be used, and the reason by id for each of the others. What a vector
        costs is timed now, on the first 256 images, without the cache.

    Raises:
        AnnotatorError: No image can be used.
    """
    embedder = make_embedder(embedder_name)
    fingerprint = embedder.fingerprint.digest
    folder.mkdir(parents=True, exist_ok=True)
    with EmbeddingCache(folder / f"embeddings-{fingerprint[:16]}.sqlite", fingerprint) as cache:
        embedded = embed_images(refs, embedder, cache=cache)
        results = list(track(embedded, total=len(refs), label=label))
    good = [(r.ref, r.vector) for r in results if r.vector is not None]
    failed = {r.ref.id: r.error.message for r in results if r.error is not None}
    if not good:
        raise AnnotatorError(f"None of the {len(refs)} images can be used: {failed}")
    sample = [ref for ref, _ in good[:_TIMED]]
    start = Cost.now()
    with maybe_on_gpu():
        for _ in embed_images(sample, embedder):
            pass
    cost = (Cost.now() - start) * (len(good) / len(sample))
    return Pictures([ref for ref, _ in good], np.stack([v for _, v in good]), cost, folder), failed


def digest(*parts: object) -> str:
    """Twenty hexadecimal digits that change with any of `parts`, which are plain JSON values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:20]
