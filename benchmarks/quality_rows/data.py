"""What a row gets: images, label sets (of the training side alone), groups, shared features."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from annotator.encoders.cache import EmbeddingCache
from annotator.encoders.local_runner import cpu_count, embed_images
from annotator.encoders.registry import make_embedder
from annotator.errors import AnnotatorError
from annotator.images.decode import decode
from annotator.images.ref import ImageRef
from index.progress import track
from quality_rows.cost import Cost, Ledger

T = TypeVar("T")
LabelSet = frozenset[str]

_TIMED = 256  # images
_MISSING = frozenset({"", "na", "n/a", "nan", "none", "null"})


class Row(Protocol):
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
    """A row asked for the labels of the side that it is tested on."""


class Pictures:
    """The images of one side, with their vectors and pixels.

    Args:
        refs: n images that can be decoded.
        vectors: float32[n, dim] of unit norm.
        cost: Of computing the vectors, loading the encoder included.
        folder: Where decoded pixels are kept.
    """

    def __init__(
        self, refs: Sequence[ImageRef], vectors: NDArray[np.float32], cost: Cost, folder: Path
    ) -> None:
        self.refs = tuple(refs)
        self.vectors = vectors
        self.cost = cost
        self._folder = folder
        self._pixels: dict[int, tuple[NDArray[np.uint8], Cost]] = {}

    def pixels(self, size: int) -> tuple[NDArray[np.uint8], Cost]:
        """uint8[n, size, size, 3], mapped from disk, each image stretched to a square; the cost."""
        if size not in self._pixels:
            key = digest([ref.id for ref in self.refs], [ref.where for ref in self.refs])
            path = self._folder / f"pixels-{size}-{key}.npy"
            if not path.with_suffix(".json").exists():
                self._decode(path, size)
            cost = Cost(**json.loads(path.with_suffix(".json").read_text()))
            self._pixels[size] = np.load(path, mmap_mode="r"), cost
        return self._pixels[size]

    def _decode(self, path: Path, size: int) -> None:
        start = Cost.now()
        path.parent.mkdir(parents=True, exist_ok=True)
        shape = (len(self.refs), size, size, 3)
        table = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)

        def put(row: int) -> None:
            picture = decode(self.refs[row].read(), at_least=size)[0].convert("RGB")
            table[row] = np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC))

        with ThreadPoolExecutor(cpu_count()) as pool:
            done = pool.map(put, range(len(self.refs)))
            list(track(done, total=len(self.refs), label=f"Decoding to {size} px"))
        table.flush()
        path.with_suffix(".json").write_text(json.dumps(vars(Cost.now() - start)))


class Data:
    """Some images of one side.

    Args:
        pictures: All images of the side.
        groups: int64[n]: images with the same number are of one patient or study.
        labels: Their label sets, or None to hide them from the rows.
        ledger: Told what rows use.
        rows: int64[m], which of them; None for all.

    Attributes:
        ids: m image ids.
        images: m images.
        groups: int64[m].
    """

    def __init__(
        self,
        pictures: Pictures,
        groups: NDArray[np.int64],
        labels: Sequence[LabelSet] | None,
        ledger: Ledger,
        rows: NDArray[np.int64] | None = None,
    ) -> None:
        self._rows = np.arange(len(pictures.refs)) if rows is None else rows
        self._pictures = pictures
        self._all_groups, self._all_labels = groups, labels
        self._known: dict[str, tuple[Any, Cost]] = {}
        self.ledger = ledger
        self.images = tuple(pictures.refs[i] for i in self._rows)
        self.ids = tuple(ref.id for ref in self.images)
        self.groups = groups[self._rows]

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def labels(self) -> tuple[LabelSet, ...]:
        """The label set of each image.

        Raises:
            HiddenLabels: This is the side that is tested on.
        """
        if self._all_labels is None:
            raise HiddenLabels("the labels of the test side are not for the rows to see")
        return tuple(self._all_labels[i] for i in self._rows)

    def take(self, rows: NDArray[np.int64]) -> Data:
        """Some of these images, by position, with the same pictures behind them."""
        return Data(
            self._pictures, self._all_groups, self._all_labels, self.ledger, self._rows[rows]
        )

    def vectors(self) -> NDArray[np.float32]:
        """float32[m, dim]: the product's embeddings, of unit norm."""
        share = len(self) / len(self._pictures.refs)
        self.ledger.charge(f"{id(self)} vectors", self._pictures.cost * share)
        return np.ascontiguousarray(self._pictures.vectors[self._rows])

    def pixels(self, size: int, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """uint8[len(rows), size, size, 3]: decoded images by position, stretched to squares."""
        start = Cost.now()
        table, cost = self._pictures.pixels(size)
        share = len(self) / len(self._pictures.refs)
        self.ledger.charge(f"{id(self)} pixels {size}", cost * share, Cost.now() - start)
        return np.asarray(table[self._rows[rows]])

    def remember(self, key: str, compute: Callable[[], T]) -> T:
        """What `compute` returns, computed once and charged to every row that asks.

        `compute` must not ask for vectors, pixels or other remembered things itself: these would be
        charged twice.
        """
        spent = Cost()
        if key not in self._known:
            start = Cost.now()
            result = compute()
            spent = Cost.now() - start
            self._known[key] = result, spent
        value, cost = self._known[key]
        self.ledger.charge(f"{id(self)} {key}", cost, spent)
        return value  # type: ignore[no-any-return]


def known_group(name: str) -> str:
    """A group's name, or an empty string for the usual words for "not known".

    Taking all images without a patient id for one patient would leave most of a collection out at
    once.
    """
    name = name.strip()
    return "" if name.casefold() in _MISSING else name


def number_groups(ids: Sequence[str], groups: Mapping[str, str]) -> NDArray[np.int64]:
    """int64[n]: a number for each group; an image without a known group is one of its own.

    Args:
        ids: n image ids.
        groups: Group by id; see `known_group`.
    """
    numbers: dict[tuple[bool, str], int] = {}
    keys = []
    for id_ in ids:
        name = known_group(groups.get(id_, ""))
        keys.append((bool(name), name or id_))
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)


def embed_side(
    refs: Sequence[ImageRef], embedder_name: str, folder: Path, label: str
) -> tuple[Pictures, dict[str, str]]:
    """Embed the images of a side, with a cache in `folder`.

    Returns:
        The images that can be used, and the reason by id for each of the others. The cost of a
        vector that was known before is the mean cost of those that were computed.

    Raises:
        AnnotatorError: No image can be used.
    """
    start = Cost.now()
    embedder = make_embedder(embedder_name)
    fingerprint = embedder.fingerprint.digest
    stored = folder / f"embeddings-{fingerprint[:16]}.sqlite"
    path = stored.with_suffix(".json")
    fresh, spent = 0, Cost()
    if path.exists():
        record = json.loads(path.read_text())
        fresh, spent = record["images"], Cost(record["seconds"], record["cpu_seconds"])
    with EmbeddingCache(stored, fingerprint) as cache:
        results = list(
            track(embed_images(refs, embedder, cache=cache), total=len(refs), label=label)
        )
    computed = sum(not r.cached and r.vector is not None for r in results)
    if fresh + computed == 0:  # all known from a run that was stopped before it noted the cost
        start = Cost.now()
        computed = len(list(embed_images(refs[:_TIMED], embedder)))
    if computed:
        fresh, spent = fresh + computed, spent + (Cost.now() - start)
        path.write_text(json.dumps({"images": fresh, **vars(spent)}))
    good = [r for r in results if r.vector is not None]
    failed = {r.ref.id: r.error or "" for r in results if r.vector is None}
    if not good:
        raise AnnotatorError(f"None of the {len(refs)} images can be used: {failed}")
    vectors = np.stack([r.vector for r in good if r.vector is not None])
    return Pictures([r.ref for r in good], vectors, spent * (len(good) / fresh), folder), failed


def digest(*parts: object) -> str:
    """Twenty hexadecimal digits that change with any of `parts`, which are plain JSON values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:20]
