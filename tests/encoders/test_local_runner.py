"""The stream: the same vectors as one by one, in order, whatever fails, in bounded memory."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from annotator.encoders.cache import EmbeddingCache, content_key
from annotator.encoders.embedder import Encoder
from annotator.encoders.local_runner import Embedded, default_workers, embed_images
from annotator.encoders.preprocess import Preprocess
from annotator.encoders.torch_embedder import TorchEmbedder
from annotator.errors import AnnotatorError, ImageError
from annotator.images.decode import decode
from annotator.images.ref import ImageRef
from index.cores import usable_cores

HALF = (0.5, 0.5, 0.5)


def png(seed: int, size: tuple[int, int] = (40, 30)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def animation(seeds: range) -> bytes:
    frames = [Image.open(io.BytesIO(png(seed))) for seed in seeds]
    buffer = io.BytesIO()
    frames[0].save(buffer, "PNG", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def ref(name: str, read: Callable[[], bytes]) -> ImageRef:
    return ImageRef(name, f"{name}.png", read)


def refs(n: int) -> list[ImageRef]:
    return [ref(f"image{i:03}", lambda i=i: png(i)) for i in range(n)]  # type: ignore[misc]


def missing() -> bytes:
    raise ImageError("no such file", "Check the path.")


def alone(embedder: TorchEmbedder, data: bytes) -> NDArray[np.float32]:
    frames = decode(data, frames=embedder.frames, at_least=embedder.image_size).frames
    vectors = embedder.embed(embedder.prepare(frames))
    mean = vectors.sum(axis=0)
    unit: NDArray[np.float32] = mean / np.linalg.norm(mean)
    return unit


def vectors_of(results: list[Embedded]) -> NDArray[np.float32]:
    return np.stack([r.vector for r in results if r.vector is not None])


class Watched:
    """An embedder that tells what happens to it, and otherwise does what the real one does."""

    def __init__(
        self,
        embedder: TorchEmbedder,
        before: Callable[[NDArray[np.uint8]], None] = lambda pixels: None,
    ) -> None:
        self.name, self.dim = embedder.name, embedder.dim
        self.fingerprint, self.frames = embedder.fingerprint, embedder.frames
        self.image_size, self.prepare = embedder.image_size, embedder.prepare
        self.batch_size = embedder.batch_size
        self._embed, self._before = embedder.embed, before
        self.batches: list[int] = []

    def embed(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.batches.append(len(pixels))
        self._before(pixels)
        return self._embed(pixels)


@pytest.mark.parametrize(
    ("n", "workers", "batch_size"),
    [
        (0, 3, 5),
        (1, 1, 4),
        (2, 8, 1),
        (7, 3, 5),
        (33, 1, 4),
        (33, 3, 5),
        (33, None, 32),
        (33, 8, 1),
    ],
)
def test_equal_to_one_by_one_and_in_order(
    tiny_embedder: TorchEmbedder, n: int, workers: int | None, batch_size: int
) -> None:
    images = refs(n)
    results = list(embed_images(images, tiny_embedder, workers=workers, batch_size=batch_size))
    assert [r.ref for r in results] == images
    for i, result in enumerate(results):
        assert result.error is None
        assert not result.cached
        assert result.vector is not None
        assert result.vector.dtype == np.float32
        np.testing.assert_allclose(result.vector, alone(tiny_embedder, png(i)), atol=1e-6)


def test_order_holds_when_early_images_are_slow(tiny_embedder: TorchEmbedder) -> None:
    def slow(i: int) -> bytes:
        time.sleep(0.05 if i < 4 else 0)
        return png(i)

    images = [ref(str(i), lambda i=i: slow(i)) for i in range(24)]  # type: ignore[misc]
    results = list(embed_images(images, tiny_embedder, workers=4, batch_size=2))
    assert [r.ref.id for r in results] == [str(i) for i in range(24)]
    expected = np.stack([alone(tiny_embedder, png(i)) for i in range(24)])
    np.testing.assert_allclose(vectors_of(results), expected, atol=1e-6)


def test_failures_stay_in_their_place_and_cost_nothing_else(tiny_embedder: TorchEmbedder) -> None:
    def too_much() -> bytes:
        raise MemoryError

    images = refs(12)
    for place, read in ((0, missing), (3, lambda: b""), (4, lambda: png(4)[:-40]), (11, too_much)):
        images[place] = ref(f"bad{place}", read)
    results = list(embed_images(images, tiny_embedder, workers=2, batch_size=4))
    errors = {i: r.error.message for i, r in enumerate(results) if r.error is not None}
    assert errors == {
        0: "no such file",
        3: "empty file",
        4: "truncated PNG",
        11: "not enough memory to decode it",
    }
    assert [r.vector is None for r in results] == [i in errors for i in range(12)]
    good = [i for i in range(12) if i not in errors]
    expected = np.stack([alone(tiny_embedder, png(i)) for i in good])
    np.testing.assert_allclose(vectors_of(results), expected, atol=1e-6)
    nothing_else = embed_images([images[0]] * 9, tiny_embedder)
    assert [r.error and r.error.message for r in nothing_else] == ["no such file"] * 9


def test_the_cache_saves_the_work_and_gives_the_same_bits(
    tiny_embedder: TorchEmbedder, tmp_path: Path
) -> None:
    images = [*refs(6), ref("bad", missing)]
    watched = Watched(tiny_embedder)
    with EmbeddingCache(tmp_path / "c.sqlite", tiny_embedder.fingerprint.digest) as cache:
        first = list(embed_images(images[2:], watched, cache=cache))
        assert not any(r.cached for r in first)
        assert sum(watched.batches) == 4
        second = list(embed_images(images, watched, cache=cache))
        assert [r.cached for r in second] == [False] * 2 + [True] * 4 + [False]
        assert sum(watched.batches) == 6
        np.testing.assert_array_equal(vectors_of(second)[2:], vectors_of(first))
        renamed = [ref("other name", lambda: png(5))]
        assert [r.cached for r in embed_images(renamed, watched, cache=cache)] == [True]


def test_equal_images_do_not_depend_on_who_is_first(
    tiny_embedder: TorchEmbedder, tmp_path: Path
) -> None:
    """Batches are as large as without them; what is known was known before the run."""
    images = [ref(str(i), lambda i=i: png(i % 4)) for i in range(24)]  # type: ignore[misc]
    watched = Watched(tiny_embedder)
    with EmbeddingCache(tmp_path / "c.sqlite", tiny_embedder.fingerprint.digest) as cache:
        first = list(embed_images(images, watched, cache=cache, workers=1, batch_size=6))
        assert watched.batches == [6] * 4
        assert not any(r.cached for r in first)
        again = list(embed_images(images, watched, cache=cache, workers=1, batch_size=6))
        assert watched.batches == [6] * 4
        assert all(r.cached for r in again)


def test_closing_early_keeps_what_was_done_and_does_no_more(
    tiny_embedder: TorchEmbedder, tmp_path: Path
) -> None:
    read: list[int] = []
    gate = threading.Event()

    def counted(i: int) -> bytes:
        read.append(i)
        assert i < 10 or gate.wait(10)
        return png(i)

    images = [ref(str(i), lambda i=i: counted(i)) for i in range(100)]  # type: ignore[misc]
    threads = torch.get_num_threads()
    with EmbeddingCache(tmp_path / "c.sqlite", tiny_embedder.fingerprint.digest) as cache:
        results = embed_images(images, tiny_embedder, cache=cache, workers=2, batch_size=5)
        for _ in range(7):
            next(results)
        # Two batches are done, two are under way and one waits: that one is given up.
        while not {10, 15} <= set(read):
            time.sleep(0.01)
        timer = threading.Timer(0.3, gate.set)
        timer.start()
        results.close()
        timer.join()
        assert sorted(read) == list(range(20))
        assert all(cache.get(content_key(png(i))) is not None for i in read)
    assert torch.get_num_threads() == threads
    assert not [t for t in threading.enumerate() if t.name.startswith("ordered_map")]


@pytest.mark.parametrize(("workers", "batch_size"), [(1, 3), (2, 4), (4, 2)])
def test_a_slow_consumer_holds_the_readers_back(
    tiny_embedder: TorchEmbedder, workers: int, batch_size: int
) -> None:
    """At most two batches a worker are in memory: read, but not yet handed over."""
    lock, read = threading.Lock(), 0

    def counted(i: int) -> bytes:
        nonlocal read
        with lock:
            read += 1
        return png(i)

    images = [ref(str(i), lambda i=i: counted(i)) for i in range(80)]  # type: ignore[misc]
    most = 0
    results = embed_images(images, tiny_embedder, workers=workers, batch_size=batch_size)
    for taken, _ in enumerate(results):
        if taken % (2 * batch_size) == 0:
            time.sleep(0.02)  # time enough to run ahead
        most = max(most, read - taken)
    # Two batches a worker, of which the one that is being handed over is taken image by image.
    assert batch_size < most <= 2 * workers * batch_size
    assert read == 80


def test_the_encoder_never_gets_more_than_a_batch() -> None:
    watched = Watched(every_frame())
    images = [ref(str(i), lambda i=i: animation(range(i, i + 5))) for i in range(6)]  # type: ignore[misc]
    list(embed_images(images, watched, workers=1, batch_size=4))
    assert sum(watched.batches) == 30
    assert max(watched.batches) == 4


def every_frame() -> TorchEmbedder:
    generator = torch.Generator().manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 8))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(generator=generator)
    encoder = Encoder(model, Preprocess(16, "stretch", "bilinear", HALF, HALF), "linear")
    return TorchEmbedder("linear", encoder, device="cpu", precision="fp32", frames="all")


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_all_frames_give_their_normalised_mean(batch_size: int) -> None:
    embedder = every_frame()
    counts = [3, 1, 4, 2, 1]
    starts = np.cumsum([0, *counts])
    images = [
        ref(str(i), lambda i=i: animation(range(starts[i], starts[i + 1])))  # type: ignore[misc]
        for i in range(len(counts))
    ]
    results = list(embed_images(images, embedder, workers=2, batch_size=batch_size))
    frames = np.stack([alone(embedder, png(seed)) for seed in range(starts[-1])])
    for i, vector in enumerate(vectors_of(results)):
        mean = frames[starts[i] : starts[i + 1]].mean(axis=0)
        np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=1e-6)
        assert vector.dtype == np.float32


def test_an_error_of_the_encoder_ends_the_stream(
    tiny_embedder: TorchEmbedder, tmp_path: Path
) -> None:
    """What came before it is handed over and kept."""
    poison = tiny_embedder.prepare(decode(png(9), at_least=32).frames)[0]

    def fail(pixels: NDArray[np.uint8]) -> None:
        if any(np.array_equal(p, poison) for p in pixels):
            raise AnnotatorError("weights are damaged")

    threads = torch.get_num_threads()
    seen: list[str] = []
    with EmbeddingCache(tmp_path / "c.sqlite", tiny_embedder.fingerprint.digest) as cache:
        results = embed_images(
            refs(40), Watched(tiny_embedder, fail), cache=cache, workers=2, batch_size=4
        )
        with pytest.raises(AnnotatorError, match="weights are damaged"):
            seen.extend(result.ref.id for result in results)
        assert seen == [f"image{i:03}" for i in range(8)]
        assert all(cache.get(content_key(png(i))) is not None for i in range(8))
        assert cache.get(content_key(png(9))) is None
    assert torch.get_num_threads() == threads


def test_cores_are_shared_between_the_workers(tiny_embedder: TorchEmbedder) -> None:
    seen: set[int] = set()
    watched = Watched(tiny_embedder, lambda pixels: seen.add(torch.get_num_threads()))
    before = torch.get_num_threads()
    workers = max(1, usable_cores())
    list(embed_images(refs(8), watched, workers=workers, batch_size=2))
    assert seen == {1}
    seen.clear()
    list(embed_images(refs(4), watched, workers=1))
    assert seen == {usable_cores()}
    assert torch.get_num_threads() == before


def test_more_workers_where_images_lie_in_an_object_store() -> None:
    here = refs(3)
    there = [*here, ImageRef("a", "s3://bucket/a.png", missing)]
    assert default_workers(there) == 4 * default_workers(here) == 4 * default_workers()


def test_a_short_list_is_spread_over_the_workers(tiny_embedder: TorchEmbedder) -> None:
    watched = Watched(tiny_embedder)
    list(embed_images(refs(10), watched, workers=4, batch_size=32))
    assert sorted(watched.batches) == [1, 3, 3, 3]
