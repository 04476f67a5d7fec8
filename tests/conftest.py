"""Fixtures that several tests share."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from numpy.typing import NDArray

if TYPE_CHECKING:
    from browsing import Browser

    from annotator.collection import Collection
    from annotator.encoders.embedder import Embedder
    from annotator.encoders.torch_embedder import TorchEmbedder
    from index import StoredIndex

sys.path.insert(0, str(Path(__file__).parent))  # for `browsing`

# Threads of OpenMP spin while they wait: on cores that others use too, tests would take several
# times as long. Read once, when torch or FAISS is loaded.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# What OpenVINO makes of an encoder outlives the run, so that only the first one waits for it.
CACHE = Path(__file__).parents[1] / ".pytest_cache" / "annotator"
os.environ.setdefault("ANNOTATOR_CACHE", str(CACHE))
# How long an example takes says how busy the machine is.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Modules that take long come first, so that no worker ends long after the others."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object | None:
    """With several workers, a module stays on one, as do all that start Milvus or Ray."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler.loadfile import LoadFileScheduling

    class ByServer(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            module = super()._split_scope(nodeid)
            return next((name for name in ("milvus", "ray") if name in module), module)

    return ByServer(config, log)


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[None]:
    """A small Ray cluster on this machine, connected in this process."""
    if os.environ.get("ANNOTATOR_REQUIRE_RAY") != "1":
        pytest.importorskip("ray.data", reason="the extra `ray` is not installed")
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(
        "local",
        num_cpus=2,
        object_store_memory=100 << 20,
        include_dashboard=False,
        log_to_driver=False,
    )
    yield
    ray.shutdown()


@dataclass(frozen=True)
class RareMarks:
    """Images of some kinds, a few of which also have a mark, a concept in a direction of its own.

    Attributes:
        vectors: float32[n, kinds + marks] of unit norm.
        sets: Concepts of each: its kind, C0 and so on, and its mark, C100 and so on.
    """

    vectors: NDArray[np.float32]
    sets: list[list[str]]

    @classmethod
    def draw(cls, n: int, kinds: int, marks: int) -> RareMarks:
        """Draw n images, of which 15 in a hundred have a mark."""
        rng = np.random.default_rng(0)
        kind, mark = rng.integers(kinds, size=n), rng.integers(marks, size=n)
        has = rng.random(n) < 0.15
        vectors = np.zeros((n, kinds + marks))
        vectors[np.arange(n), kind] = 1
        vectors[np.flatnonzero(has), kinds + mark[has]] = 0.5
        vectors += rng.normal(0, 0.15, vectors.shape)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        sets = [
            [f"C{k}", *([f"C{100 + m}"] if h else [])]
            for k, m, h in zip(kind, mark, has, strict=True)
        ]
        return cls(vectors.astype(np.float32), sets)


@pytest.fixture(scope="session")
def rare_marks() -> Callable[[int, int, int], RareMarks]:
    """`RareMarks.draw`."""
    return RareMarks.draw


@pytest.fixture(scope="session")
def tiny_embedder() -> TorchEmbedder:
    """A small random convolutional network as an embedder: 32 px, 16 dimensions, fp32, on the CPU.

    Its vectors are deterministic and differ between different images.
    """
    import torch
    from torch import nn

    from annotator.encoders.embedder import Encoder
    from annotator.encoders.preprocess import Preprocess
    from annotator.encoders.torch_embedder import TorchEmbedder

    model = nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=2), nn.ReLU(), nn.Conv2d(8, 16, 5, stride=2), nn.Tanh()
    )
    model.append(nn.AdaptiveAvgPool2d(2)).append(nn.Flatten()).append(nn.Linear(64, 16))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3, generator=generator)
    half = (0.5, 0.5, 0.5)
    preprocess = Preprocess(32, "letterbox", "bicubic", half, half)
    return TorchEmbedder("tiny", Encoder(model, preprocess, "tiny"), device="cpu", precision="fp32")


@pytest.fixture(scope="session")
def clip_embedder(tmp_path_factory: pytest.TempPathFactory) -> Embedder:
    """A small random open_clip model with a text tower, saved as a repository on disk."""
    from annotator.encoders.torch_setup import make_torchvision_importable

    if importlib.util.find_spec("open_clip") is None:
        pytest.skip("open_clip is an optional extra")
    make_torchvision_importable()
    import open_clip
    import torch
    from safetensors.torch import save_file

    from annotator.encoders.registry import make_embedder

    tower = {"width": 32, "layers": 2}
    config = {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 32, "head_width": 16, "patch_size": 8, **tower},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "heads": 2, **tower},
    }
    folder = tmp_path_factory.mktemp("clip") / "tiny-with-text"
    folder.mkdir()
    (folder / "tiny-with-text.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder / "tiny-with-text.json")
    torch.manual_seed(0)
    model = open_clip.create_model("tiny-with-text")
    save_file({n: t.clone() for n, t in model.state_dict().items()},
              folder / "open_clip_model.safetensors")  # fmt: skip
    half = [0.5, 0.5, 0.5]
    preprocess = {"mean": half, "std": half, "interpolation": "bicubic", "resize_mode": "longest"}
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": config, "preprocess_cfg": preprocess})
    )
    return make_embedder(f"local-dir:{folder}", device="cpu", precision="fp32")


@pytest.fixture(scope="session")
def write_dicom() -> Callable[..., str]:
    """Writes a small DICOM file; returns its SOPInstanceUID."""
    return _write_dicom


def _write_dicom(
    path: Path, *, seed: int | None = 0, syntax: str = "", **attributes: object
) -> str:
    """Write 32 x 32 random pixels, or none without a `seed`; attributes are set, or left out."""
    from pydicom import dcmwrite
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import BasicTextSRStorage, CTImageStorage, ExplicitVRLittleEndian, generate_uid

    ds = Dataset()
    ds.SOPClassUID = BasicTextSRStorage if seed is None else CTImageStorage
    ds.SOPInstanceUID = generate_uid(entropy_srcs=[str(path)])
    ds.Modality = "SR" if seed is None else "CT"
    if seed is not None:
        ds.Rows = ds.Columns = 32
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.BitsAllocated = ds.BitsStored = 8
        ds.HighBit, ds.PixelRepresentation = 7, 0
        ds.PixelData = np.random.default_rng(seed).integers(0, 256, 1024, np.uint8).tobytes()
        ds["PixelData"].VR = "OB"
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax or ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = uid = str(ds.SOPInstanceUID)
    for keyword, value in attributes.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    dcmwrite(path, ds, enforce_file_format=True)
    return uid


@pytest.fixture
def dicom_tree(tmp_path: Path) -> Path:
    """Two patients of two studies of two series, each one `IM000001`, with a DICOMDIR and an SR."""
    from pydicom.uid import MediaStorageDirectoryStorage

    folder = tmp_path / "disk"
    for i in range(8):
        patient, study, series = i // 4, i // 2 % 2, i % 2
        _write_dicom(
            folder / f"P{patient}" / f"S{study}" / f"R{series}" / "IM000001",
            seed=i,
            PatientID=f"secret-{patient}",
            Modality=("DX", "CR")[series],
        )
    _write_dicom(folder / "P0" / "S0" / "R2" / "IM000001", seed=None, PatientID="secret-0")
    _write_dicom(folder / "DICOMDIR", seed=None, SOPClassUID=MediaStorageDirectoryStorage)
    return folder


@pytest.fixture(scope="session")
def draw_pattern() -> Callable[[Path, int, int], None]:
    return _draw_pattern


@pytest.fixture(scope="session")
def draw() -> Callable[[Path, int, int], None]:
    """Such patterns larger and clearer, for whole commands."""
    return partial(_draw_pattern, scale=2, contrast=90, noise=12)


def _draw_pattern(
    path: Path, kind: int, seed: int, scale: int = 1, contrast: int = 80, noise: int = 25
) -> None:
    """One of three kinds of pattern, each image a little different."""
    from PIL import Image

    rng = np.random.default_rng([kind, seed])
    y, x = np.mgrid[0 : 32 * scale, 0 : 40 * scale] / (5 * scale) + rng.random(2)[:, None, None]
    waves = (np.sin(3 * x), np.sin(x) * np.sin(y), np.sin(4 * y))[kind]
    values = waves * contrast + 128 + rng.normal(0, noise, waves.shape)
    Image.fromarray(values.clip(0, 255).astype(np.uint8)).save(path)


@pytest.fixture(scope="session")
def patterns(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    """120 small images of three patterns, two of each patient; the concepts follow the pattern."""
    from annotator.collection import read_collection

    folder = tmp_path_factory.mktemp("patterns")
    (folder / "images").mkdir()
    concepts, groups = ["ID,CUIs\n"], ["ID,patient\n"]
    for i in range(120):
        kind = i // 2 % 3
        _draw_pattern(folder / "images" / f"i{i:03d}.png", kind, i)
        concepts.append(f"i{i:03d},C{kind};C9\n" if i % 5 else f"i{i:03d},C{kind}\n")
        groups.append(f"i{i:03d},p{i // 2}\n")
    (folder / "concepts.csv").write_text("".join(concepts))
    (folder / "groups.csv").write_text("".join(groups))
    return read_collection(
        folder / "images", folder / "concepts.csv", groups=str(folder / "groups.csv")
    )


@pytest.fixture(scope="session")
def _tuned_index(
    tmp_path_factory: pytest.TempPathFactory, patterns: Collection, tiny_embedder: TorchEmbedder
) -> Path:
    from annotator.indexing.build import build_index

    directory = tmp_path_factory.mktemp("tuned") / "index"
    build_index(patterns, directory, tiny_embedder)
    return directory


@pytest.fixture
def tuned_index(_tuned_index: Path, tmp_path: Path) -> Path:
    """An index of `patterns`, projected and tuned; each test has a copy of its own."""
    return Path(shutil.copytree(_tuned_index, tmp_path / "tuned"))


@pytest.fixture
def make_index(tmp_path: Path) -> Callable[..., StoredIndex]:
    """An index of images on the unit circle, by their angles in degrees."""

    from index import VersionWriter, open_index

    def make(
        angles: list[float],
        concepts: list[list[str]],
        groups: list[str] | None = None,
    ) -> StoredIndex:
        radians = np.deg2rad(np.array(angles))
        ids = [f"i{n}" for n in range(len(angles))]
        columns = {"captions": [f"Case {n}." for n in range(len(angles))]}
        if groups is not None:
            columns["groups"] = list(groups)
        with VersionWriter(tmp_path / "circle") as writer:
            writer.add(np.column_stack([np.cos(radians), np.sin(radians)]).astype(np.float32))
            writer.publish(
                ids, concepts, names={"C1": "One"}, columns=columns, about={}, index_type="flat"
            )
        return open_index(tmp_path / "circle")

    return make


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Of tests that are `in_a_browser`."""
    from browsing import chromium

    with chromium() as found:
        yield found
