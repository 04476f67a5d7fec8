"""The workers of a Ray cluster give the local runner's bits, whatever happens to them."""

from __future__ import annotations

import dataclasses
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from annotator.encoders import ray_runner
from annotator.encoders.cache import EmbeddingCache, content_key
from annotator.encoders.embedder import Embedder
from annotator.encoders.local_runner import Embedded, embed_images
from annotator.encoders.ray_runner import RayRunner, _pool_of
from annotator.encoders.ray_worker import CachedKeys, EncoderSpec, EncodingWorker
from annotator.encoders.registry import make_embedder
from annotator.encoders.torch_setup import make_torchvision_importable
from annotator.errors import AnnotatorError
from annotator.images.ref import ImageRef
from annotator.images.sources import find_images

Draw = Callable[[Path, int, int], None]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Embedder:
    """A small network with random weights in a file, from which workers can make it, too."""
    import torch
    from safetensors.torch import save_file

    make_torchvision_importable()
    import timm

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    save_file(timm.create_model("test_resnet", num_classes=0).state_dict(), path)
    return make_embedder(f"timm:test_resnet@{path}", precision="fp32", device="cpu")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory, draw: Draw) -> list[ImageRef]:
    """48 of files, 12 of Parquet, some of them bad."""
    folder = tmp_path_factory.mktemp("images")
    for i in range(60):
        draw(folder / f"i{i:02}.png", i % 3, i)
    (folder / "i07.png").write_bytes(b"")
    (folder / "i30.png").write_bytes((folder / "i31.png").read_bytes()[:-40])
    rows = [{"bytes": (folder / f"i{i}.png").read_bytes(), "path": f"i{i}"} for i in range(48, 60)]
    pq.write_table(pa.table({"image": rows}), folder / "rest.parquet", row_group_size=5)
    for i in range(48, 60):
        (folder / f"i{i}.png").unlink()
    refs = find_images(folder).images
    (folder / "i12.png").unlink()
    return refs


@pytest.fixture(scope="module")
def local(images: list[ImageRef], encoder: Embedder) -> list[Embedded]:
    return list(embed_images(images, encoder, batch_size=4, workers=2))


def assert_same(found: Sequence[Embedded], expected: Sequence[Embedded]) -> None:
    """All but `cached` is equal, the vectors bit by bit."""
    assert len(found) == len(expected)
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.ref is theirs.ref
        assert (str(mine.error), mine.content) == (str(theirs.error), theirs.content)
        if theirs.vector is None:
            assert mine.vector is None
        else:
            assert mine.vector is not None
            assert mine.vector.dtype == np.float32
            np.testing.assert_array_equal(mine.vector, theirs.vector)


def watched(ref: ImageRef, folder: Path, seconds: float = 0.0) -> ImageRef:
    """An image whose readers leave their process ids."""

    def read() -> bytes:
        (folder / f"{os.getpid()}.pid").touch()
        time.sleep(seconds)
        return ref.read()

    return dataclasses.replace(ref, read=read)


def pids(folder: Path) -> list[int]:
    return [int(path.stem) for path in folder.glob("*.pid")]


def runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_the_local_bits_order_and_errors_even_if_a_worker_is_killed(
    ray_cluster: None,
    images: list[ImageRef],
    encoder: Embedder,
    local: list[Embedded],
    tmp_path: Path,
) -> None:
    watched_images = [watched(ref, tmp_path, 0.03) for ref in images]
    victims: list[int] = []

    def kill_the_first() -> None:
        while not victims:
            time.sleep(0.01)
            victims.extend(pids(tmp_path)[:1])
        os.kill(victims[0], signal.SIGKILL)  # while it reads the first of its images

    killer = threading.Thread(target=kill_the_first)
    killer.start()
    found = list(RayRunner()(watched_images, encoder, batch_size=4, workers=2))
    killer.join()
    assert victims[0] != os.getpid()
    assert not runs(victims[0])
    assert len(pids(tmp_path)) == 3  # another process took its place
    assert [result.ref for result in found] == watched_images
    assert_same([dataclasses.replace(r, ref=i) for r, i in zip(found, images, strict=True)], local)
    assert [r.error.message for r in found if r.error is not None] == [
        "empty file",
        "no such file",
        "truncated PNG",
    ]
    assert not any(r.cached for r in found)


def test_the_cache_is_the_drivers(
    ray_cluster: None,
    images: list[ImageRef],
    encoder: Embedder,
    local: list[Embedded],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In a worker that has several calls at once, as on a GPU."""
    pool = ray_runner._Pool(actors=1, cpus=1, gpus=0, calls=3)
    monkeypatch.setattr(ray_runner, "_pool_of", lambda *_: pool)
    with EmbeddingCache(tmp_path / "c.sqlite", encoder.fingerprint.digest) as cache:
        list(embed_images(images[:20], encoder, cache=cache, batch_size=4, workers=2))
        with sqlite3.connect(tmp_path / "c.sqlite") as database:
            database.execute(
                "UPDATE vectors SET vector = zeroblob(16) WHERE content = ?", (local[2].content,)
            )
        found = list(RayRunner()(images, encoder, cache=cache, batch_size=4, workers=2))
        # In fp32 the batch decides about the last bits: that of the damaged one has one image.
        assert found[2].vector is not None
        assert local[2].vector is not None
        np.testing.assert_allclose(found[2].vector, local[2].vector, atol=1e-6)
        assert_same([*found[:2], *found[3:]], [*local[:2], *local[3:]])
        assert [i for i, r in enumerate(found) if r.cached] == [
            i for i in range(20) if i not in (2, 7, 12)
        ]
        again = list(embed_images(images, encoder, cache=cache, batch_size=4, workers=2))
        assert_same(again, found)
        assert all(r.cached for r in again if r.vector is not None)


@pytest.mark.slow
def test_closing_early_ends_the_workers(
    ray_cluster: None, images: list[ImageRef], encoder: Embedder, tmp_path: Path
) -> None:
    refs = [watched(ref, tmp_path, 0.05) for ref in images]
    results = RayRunner()(refs, encoder, batch_size=4, workers=1)
    next(results)
    results.close()
    deadline = time.monotonic() + 30
    while any(map(runs, pids(tmp_path))) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert pids(tmp_path)
    assert not any(map(runs, pids(tmp_path)))


@pytest.mark.slow
def test_images_that_end_every_worker_end_the_run(
    ray_cluster: None,
    images: list[ImageRef],
    encoder: Embedder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def crash() -> bytes:
        os._exit(1)

    monkeypatch.setattr(ray_runner, "EncoderSpec", partial(EncoderSpec, attempts=2))
    poisoned = [*images[:9], dataclasses.replace(images[9], read=crash), *images[10:]]
    with pytest.raises(AnnotatorError, match="2 of Ray's workers died") as caught:
        list(RayRunner()(poisoned, encoder, batch_size=4, workers=1))
    assert f"{images[8].where} to {images[11].where}" in caught.value.message


def test_an_encoder_that_a_worker_cannot_load(ray_cluster: None, encoder: Embedder) -> None:
    """It is a row, so that the error comes to the user as it is, and no worker is restarted."""
    import ray

    gone = "timm:gone@/x.safetensors"  # by torch: OpenVINO would need no weights
    spec = EncoderSpec(gone, encoder.fingerprint, "cpu", 4, 1, False, "/", engine="torch")
    worker = EncodingWorker(spec, ray.put(b""), None)
    (row,) = worker(pa.table({})).to_pylist()
    assert row["fatal"].startswith("timm has no model 'gone'")
    with pytest.raises(AnnotatorError, match="timm has no model 'gone'"):
        list(ray_runner._results([row], iter([]), encoder, None, 4, False))


# Without a cluster


def node(alive: bool = True, **resources: float) -> dict[str, Any]:
    return {"Alive": alive, "Resources": resources}


def test_the_actors_that_a_cluster_has_room_for() -> None:
    nodes = [node(CPU=8.0), node(CPU=3.0), node(False, CPU=64.0), node(memory=1.0)]
    assert _pool_of(nodes, "auto", None, 1) == ray_runner._Pool(11, cpus=1, gpus=0, calls=1)
    assert _pool_of(nodes, "auto", 4, 1).actors == 4
    assert _pool_of(nodes, "cpu", None, 2) == ray_runner._Pool(5, cpus=2, gpus=0, calls=1)
    assert _pool_of(nodes, "cpu", None, 4) == ray_runner._Pool(3, cpus=3, gpus=0, calls=1)
    assert _pool_of(nodes, "auto", None, 0).cpus == 1
    assert _pool_of(nodes, "auto", None, 1, 4) == ray_runner._Pool(11, cpus=1, gpus=0, calls=4)
    gpus = [node(CPU=16.0, GPU=2.0), node(CPU=8.0, GPU=1.0)]
    assert _pool_of(gpus, "auto", None, 1) == ray_runner._Pool(3, cpus=1, gpus=1, calls=8)
    assert _pool_of(gpus, "cuda", 5, 1).calls == 5
    assert _pool_of(gpus, "cpu", None, 1).gpus == 0
    with pytest.raises(AnnotatorError, match="the Ray cluster has no GPU"):
        _pool_of(nodes, "cuda", None, 1)


def test_another_encoder_in_the_workers_is_refused(encoder: Embedder, tmp_path: Path) -> None:
    spec = EncoderSpec(
        encoder.name, encoder.fingerprint, "cpu", 4, 1, False, str(tmp_path / "not there")
    )
    assert spec.make().fingerprint == encoder.fingerprint
    other = dataclasses.replace(encoder.fingerprint, weights="sha256:other")
    with pytest.raises(AnnotatorError, match=r"is another one on .*: weights: sha256:") as caught:
        dataclasses.replace(spec, fingerprint=other).make()
    assert "on every node" in caught.value.hint


def test_known_keys_stand_for_the_cache() -> None:
    keys = [content_key(bytes([i])) for i in range(5)]
    known = CachedKeys(b"".join(keys[:3]))
    assert [known.get(key) is not None for key in keys] == [True] * 3 + [False] * 2
    assert known.get(keys[0]).shape == (0,)  # type: ignore[union-attr]
    assert CachedKeys(b"").get(keys[0]) is None
