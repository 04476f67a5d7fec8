"""OpenVINO and torch give the same vectors, and what OpenVINO has kept needs no torch."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_models import SAVERS
from torch import Tensor, nn

from annotator.encoders import converted
from annotator.encoders.convert import TOLERANCE, openvino_or_torch
from annotator.encoders.embedder import Embedder, Encoder
from annotator.encoders.fingerprint import Fingerprint
from annotator.encoders.openvino_embedder import OpenVinoEmbedder, runs_in
from annotator.encoders.preprocess import DECODER_VERSION, Preprocess
from annotator.encoders.registry import DEFAULT, make_embedder
from annotator.encoders.torch_embedder import TorchEmbedder
from annotator.encoders.torch_setup import Precision
from annotator.errors import AnnotatorError

if TYPE_CHECKING:
    from annotator.phantoms.sample import SamplePaths

pytest.importorskip("openvino", reason="the extra `openvino` is not installed")

HALF = (0.5, 0.5, 0.5)
SMALL = f"{DEFAULT}@64"
CACHE = os.environ["ANNOTATOR_CACHE"]  # of all tests
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of converted encoders, of this test alone."""
    monkeypatch.setenv("ANNOTATOR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "encoders"


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> SamplePaths:
    from annotator.phantoms import write_sample

    return write_sample(tmp_path_factory.mktemp("sample") / "s", n=32, seed=1)


def native(precision: Precision) -> None:
    if not runs_in(precision):
        pytest.skip("this CPU does not multiply bf16")


def on(engine: Any, name: str, precision: Precision = "fp32", **options: Any) -> Embedder:
    return make_embedder(name, device="cpu", precision=precision, engine=engine, **options)


def pixels_of(embedder: Embedder, sample: SamplePaths, n: int) -> NDArray[np.uint8]:
    images = sorted(Path(sample.images).iterdir())[:n]
    return np.concatenate([embedder.prepare([Image.open(i).convert("L")]) for i in images])


# --- The same vectors -----------------------------------------------------------------------------


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", [DEFAULT, f"{DEFAULT}@96", f"crop:{SMALL}"])
def test_both_engines_give_the_same_vectors(
    sample: SamplePaths, name: str, precision: Precision
) -> None:
    native(precision)
    ours, theirs = on("openvino", name, precision), on("torch", name, precision)
    assert (ours.engine, theirs.engine) == ("openvino", "torch")
    assert ours.fingerprint == theirs.fingerprint
    assert (ours.dim, ours.blocks) == (theirs.dim, theirs.blocks)
    pixels = pixels_of(theirs, sample, 16)
    assert np.array_equal(pixels_of(ours, sample, 16), pixels)
    a, b = ours.embed(pixels), theirs.embed(pixels)
    assert a.dtype == np.float32 and np.allclose(np.linalg.norm(a, axis=1), 1, atol=1e-6)
    assert (a * b).sum(axis=1).min() >= TOLERANCE[precision]
    # Each image is nearest to itself, whichever engine encoded it.
    assert np.array_equal((a @ b.T).argmax(axis=1), (b @ b.T).argmax(axis=1))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_vector_does_not_depend_on_its_batch(sample: SamplePaths, precision: Precision) -> None:
    native(precision)
    embedder = on("openvino", DEFAULT, precision)
    pixels = pixels_of(embedder, sample, 11)
    whole = embedder.embed(pixels)
    for size in (1, 2, 3, 8):
        parts = [embedder.embed(pixels[i : i + size]) for i in range(0, len(pixels), size)]
        assert np.array_equal(np.concatenate(parts), whole)


def test_many_threads_get_the_same_vectors(sample: SamplePaths) -> None:
    embedder = on("openvino", SMALL)
    pixels = pixels_of(embedder, sample, 8)
    alone = embedder.embed(pixels)
    with ThreadPoolExecutor(6) as pool:
        for found in pool.map(embedder.embed, [pixels] * 30):
            assert np.array_equal(found, alone)


@pytest.mark.parametrize("kind", list(SAVERS))
def test_each_library_s_encoder(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    import huggingface_hub.constants
    from tiny_models import make_xrv_small

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    if kind == "xrv":
        make_xrv_small(monkeypatch)
    name = SAVERS[kind](tmp_path / kind)
    theirs, ours = on("torch", name), on("auto", name)
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (5, 4), np.uint8)).resize((80, 64))]
    a, b = (e.embed(e.prepare(images)) for e in (theirs, ours))
    assert (a * b).sum() >= TOLERANCE["fp32"]
    if kind == "onnx":
        assert ours.engine == theirs.engine == "onnxruntime"
        with pytest.raises(AnnotatorError, match="onnxruntime runs it"):
            on("openvino", name)
        return
    assert (theirs.engine, ours.engine) == ("torch", "openvino")
    # Known by its fingerprint, it needs neither its library nor its weights.
    again = on("auto", f"{name}-moved", recorded=ours.fingerprint)
    assert np.array_equal(again.embed(again.prepare(images)), b)


def test_weights_that_change_on_disk_change_no_index(own_cache: Path, tmp_path: Path) -> None:
    """What an index records is answered as it was, by what is kept; the file now is another one."""
    name = SAVERS["timm"](tmp_path / "timm")
    before = on("openvino", name)
    pixels = np.random.default_rng(0).integers(0, 256, (2, *[before.image_size] * 2, 3), np.uint8)
    vectors = before.embed(pixels)
    (file,) = (tmp_path / "timm").rglob("*.safetensors")
    tensors = load_file(file)
    noisy = {n: t + 0.05 * torch.randn_like(t) if t.dtype.is_floating_point and t.ndim > 1 else t
             for n, t in tensors.items()}  # fmt: skip
    save_file(noisy, file)
    recorded = on("openvino", name, recorded=before.fingerprint)
    assert recorded.fingerprint == before.fingerprint
    assert np.array_equal(recorded.embed(pixels), vectors)
    now = on("openvino", name)
    assert now.fingerprint.weights != before.fingerprint.weights
    assert not np.allclose(now.embed(pixels), vectors, atol=1e-3)
    with pytest.raises(AnnotatorError, match="is another one now: weights"):
        recorded.position_contributions(Image.new("L", (8, 8)))


def test_frames_matter_to_the_fingerprint_alone(own_cache: Path) -> None:
    middle, every = on("auto", SMALL), on("auto", SMALL, frames="all")
    assert every.frames == "all" and every.fingerprint != middle.fingerprint
    assert len(list(own_cache.iterdir())) == 1
    assert on("auto", SMALL, recorded=every.fingerprint).fingerprint == every.fingerprint


def test_explanations_come_from_torch(sample: SamplePaths) -> None:
    ours, theirs = on("openvino", SMALL), on("torch", SMALL)
    frame = Image.open(min(Path(sample.images).iterdir())).convert("L")
    maps, expected = ours.position_contributions(frame), theirs.position_contributions(frame)
    assert maps is not None and expected is not None
    assert all(np.array_equal(a.values, b.values) for a, b in zip(maps, expected, strict=True))
    vector = np.concatenate([map_.values.sum(axis=(0, 1)) for map_ in maps])
    np.testing.assert_allclose(vector, ours.embed(ours.prepare([frame]))[0], atol=1e-4)


def test_other_pixels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"takes uint8\[n, 64, 64, 3\]"):
        on("openvino", SMALL).embed(np.zeros((1, 64, 64, 3), np.float32))


# --- What is kept ---------------------------------------------------------------------------------


@pytest.fixture
def one_kept(own_cache: Path) -> tuple[Embedder, Path]:
    """A converted encoder, and its file in a folder of this test alone."""
    with pytest.MonkeyPatch.context() as shared:
        shared.setenv("ANNOTATOR_CACHE", CACHE)
        made = on("openvino", SMALL)
        (file,) = converted.folder().glob(f"{made.fingerprint.digest}*")
    own_cache.mkdir(parents=True)
    return made, Path(shutil.copy(file, own_cache))


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: data[:-1000] + bytes(1000),
        lambda data: data.replace(b'"version":"1"', b'"version":"0"'),
    ],
    ids=["half", "empty", "changed", "of another version"],
)
def test_a_damaged_file_counts_as_absent(
    one_kept: tuple[Embedder, Path], damage: Callable[[bytes], bytes]
) -> None:
    made, file = one_kept
    sound = file.read_bytes()
    assert converted.kept(made.fingerprint) is not None
    assert damage(sound) != sound
    file.write_bytes(damage(sound))
    assert converted.kept(made.fingerprint) is None


def test_what_is_damaged_or_cannot_be_read_is_made_again(
    one_kept: tuple[Embedder, Path],
) -> None:
    made, file = one_kept
    whole = converted.kept(made.fingerprint)
    assert whole is not None
    for spoil in (
        lambda: file.write_bytes(file.read_bytes()[:1000]),
        lambda: converted.keep(replace(whole, network=b"<net>of another time</net>")),
    ):
        spoil()
        again = on("openvino", SMALL, recorded=made.fingerprint)
        assert again.engine == "openvino"
        found = converted.kept(made.fingerprint)
        assert found is not None and np.array_equal(found.weights, whole.weights)
        assert list(file.parent.iterdir()) == [file]


def test_another_encoder_s_file_is_not_taken(one_kept: tuple[Embedder, Path]) -> None:
    made, file = one_kept
    for changes in ({"weights": "sha256:0"}, {"preprocess": {"decoder": DECODER_VERSION - 1}}):
        other = replace(made.fingerprint, **changes)
        shutil.copy(file, file.with_name(f"{other.digest}.safetensors"))
        assert converted.kept(other) is None


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ANNOTATOR_CACHE", str(tmp_path / "file"))
    made = on("openvino", SMALL)
    assert made.engine == "openvino" and converted.kept(made.fingerprint) is None


def test_what_a_fitted_encoder_knows_is_kept(one_kept: tuple[Embedder, Path]) -> None:
    from annotator.encoders.fitted import Fitted

    base, _ = one_kept
    known = Fitted(
        ((0, 4),), ("C1", "C2"), np.ones((1, 4, 2), np.float32), np.zeros((1, 2), np.float32),
        np.arange(32, dtype=np.uint8).reshape(2, 16), np.array([0, -1], np.int16),
    )  # fmt: skip
    whole = converted.kept(base.fingerprint)
    assert whole is not None and whole.fitted is None
    assert converted.keep(replace(whole, fitted=known))
    again = converted.kept(base.fingerprint)
    assert again is not None and again.fitted is not None
    assert again.fitted.columns == known.columns and again.fitted.concepts == known.concepts
    for field in ("weights", "biases", "contents", "folds"):
        assert np.array_equal(getattr(again.fitted, field), getattr(known, field))


def test_which_parts_a_joint_fingerprint_has_is_kept(one_kept: tuple[Embedder, Path]) -> None:
    parts = [one_kept[0].fingerprint, replace(one_kept[0].fingerprint, weights="sha256:1", dim=8)]
    joint = Fingerprint.joined(parts)
    assert converted.kept_parts(joint) == []
    assert converted.keep_parts(parts)
    assert converted.kept_parts(joint) == parts
    of_all_frames = [replace(part, frames="all") for part in parts]
    assert converted.kept_parts(Fingerprint.joined(of_all_frames)) == of_all_frames
    (file,) = one_kept[1].parent.glob("*.json")
    sound = file.read_text()
    for text in ("", sound[:50], "[]", "{}", "[1]", sound.replace("sha256:1", "sha256:2")):
        file.write_text(text)
        assert converted.kept_parts(joint) == []


# --- Which engine ---------------------------------------------------------------------------------


def test_without_openvino_it_is_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    absent = lambda name, *rest: None if name == "openvino" else find(name, *rest)  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", absent)
    assert on("auto", SMALL).engine == "torch"
    with pytest.raises(AnnotatorError, match="is not installed") as error:
        on("openvino", SMALL)
    assert "cui-annotator[openvino]" in error.value.hint


def test_openvino_is_for_the_cpu() -> None:
    with pytest.raises(AnnotatorError, match="runs on the CPU"):
        make_embedder(SMALL, device="cuda", engine="openvino")


class Other(nn.Module):
    """A network that gives other vectors whenever it is traced."""

    def forward(self, pixels: Tensor) -> Tensor:
        means = pixels.mean(dim=(2, 3))
        return means.flip(1) if torch.jit.is_tracing() else means


class ByLength(nn.Module):
    """A network that OpenVINO cannot be told of."""

    def forward(self, pixels: Tensor) -> Tensor:
        return torch.linalg.matrix_exp(pixels[:, :, :3, :3]).mean(dim=(2, 3)) + 0.1


@pytest.mark.parametrize(
    ("network", "reason"), [(Other(), "differ from those of torch"), (ByLength(), "converted")]
)
def test_what_openvino_cannot_run_is_left_to_torch(
    own_cache: Path, network: nn.Module, reason: str
) -> None:
    def made(required: bool) -> Embedder:
        encoder = Encoder(network, Preprocess(16, "stretch", "bicubic", HALF, HALF), "odd")
        return openvino_or_torch(
            "odd", encoder, lambda: pytest.fail("not asked for"),
            precision="fp32", frames="middle", required=required,
        )  # fmt: skip

    assert isinstance(made(required=False), TorchEmbedder)
    with pytest.raises(AnnotatorError, match=reason):
        made(required=True)
    assert not own_cache.exists()


def test_joined_encoders_run_by_openvino(sample: SamplePaths) -> None:
    name = f"{SMALL}+{DEFAULT}@96"
    ours, theirs = on("openvino", name), on("torch", name)
    assert ours.engine == "openvino" and ours.fingerprint == theirs.fingerprint
    frame = Image.open(min(Path(sample.images).iterdir())).convert("L")
    a, b = (e.embed(e.prepare([frame])) for e in (ours, theirs))
    assert (a * b).sum() >= TOLERANCE["fp32"]


# --- Through the real commands --------------------------------------------------------------------

WITHOUT_TORCH = """
import json, socket, sys

def refuse(*_):
    raise SystemExit("the network was used")

socket.socket.connect = socket.getaddrinfo = refuse
sys.argv = ["annotator", *json.loads(sys.argv[1])]
from annotator.cli import main
try:
    main()
except SystemExit as end:
    if end.code:
        raise
loaded = {name.partition(".")[0] for name in sys.modules}
print(json.dumps(sorted(loaded & {"torch", "torchvision", "timm", "pandas", "openvino"})))
"""


def loaded(*arguments: object) -> list[str]:
    """Libraries that a command has loaded, of those that take long."""
    said = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, json.dumps(list(map(str, arguments)))],
        capture_output=True, text=True, check=True,
        env={k: v for k, v in os.environ.items() if k != "CI"},
    )  # fmt: skip
    return json.loads(said.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def built(sample: SamplePaths, folder: Path, embedder: str) -> Path:
    from invoking import done, invoke

    done(
        invoke("build-index", sample.images, sample.concepts, "--embedder", embedder, "--device",
               "cpu", "--precision", "fp32", "--index", folder, "--no-cache")
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def index(sample: SamplePaths, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(sample, tmp_path_factory.mktemp("engines") / "index", SMALL)


@pytest.fixture(scope="module")
def joined(sample: SamplePaths, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of two encoders' vectors."""
    return built(sample, tmp_path_factory.mktemp("joined") / "index", f"{SMALL}+{DEFAULT}@96")


def test_annotate_and_add_load_no_torch(sample: SamplePaths, index: Path) -> None:
    place = ["--index", index, "--device", "cpu", "--no-cache"]
    assert loaded("annotate", min(Path(sample.images).iterdir()), *place) == ["openvino"]
    concepts = ["--replace", *place]
    assert loaded("add", sample.images, sample.concepts, *concepts) == ["openvino"]
    assert "torch" in loaded("annotate", sample.images, *place, "--engine", "torch")


def test_a_run_is_that_of_torch(sample: SamplePaths, index: Path) -> None:
    from invoking import invoke

    runs = [
        invoke("annotate", sample.images, "--index", index, "--device", "cpu", "--no-cache",
               "--exclude-self", "--engine", engine, "-v")
        for engine in ("openvino", "torch")
    ]  # fmt: skip
    for run, engine in zip(runs, ("openvino", "torch"), strict=True):
        said = run.stderr
        assert run.exit_code == 0, said
        assert f"run by {engine} in fp32" in said
        assert "32 of 32 images are in the index" in said  # whichever engine built it
    assert runs[0].stdout == runs[1].stdout
    assert "engine: openvino" in invoke("info", "--index", index).stdout


def test_joined_encoders_load_no_torch_either(sample: SamplePaths, joined: Path) -> None:
    place = ["--index", joined, "--device", "cpu", "--no-cache"]
    assert loaded("annotate", min(Path(sample.images).iterdir()), *place) == ["openvino"]
    assert loaded("add", sample.images, sample.concepts, "--replace", *place) == ["openvino"]


@pytest.mark.parametrize("of", ["index", "joined"])
def test_the_service_loads_no_torch(of: str, request: pytest.FixtureRequest) -> None:
    index: Path = request.getfixturevalue(of)
    pytest.importorskip("fastapi", reason="the extra `service` is not installed")
    program = (
        "import sys; from starlette.testclient import TestClient; from service.app import "
        "create_app; from service.engine import open_engine; from service.settings import "
        f"Settings; s = Settings(index={str(index)!r}, device='cpu', workers=1, encoders=1)\n"
        "with TestClient(create_app(s, open_engine(s)), 'http://127.0.0.1') as client:\n"
        "    assert client.get('/v1/info').is_success\n"
        "print('torch' in sys.modules)"
    )
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert said.stdout == "False\n"


def test_engines_that_are_unknown_are_usage_errors(index: Path) -> None:
    from invoking import invoke

    assert invoke("annotate", "x.png", "--index", index, "--engine", "other").exit_code == 2


def test_an_openvino_embedder_is_what_auto_makes() -> None:
    assert isinstance(on("auto", SMALL), OpenVinoEmbedder)
