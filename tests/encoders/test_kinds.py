"""What holds for each kind of encoder string, on tiny models in each library's own format.

The vectors are those that the library itself gives for the image; the real commands build, annotate
and serve with it; the string for another library is answered with the right one.
"""

from __future__ import annotations

import csv
import importlib.util
import io
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from tiny_models import SAVERS, make_xrv_small, transformers, write_onnx, xrv_models

from annotator.encoders.registry import make_embedder
from annotator.encoders.text_tower import has_text_tower, make_text_tower
from annotator.encoders.torch_embedder import TorchEmbedder
from annotator.encoders.torch_setup import make_torchvision_importable
from annotator.errors import AnnotatorError

if TYPE_CHECKING:
    from annotator.phantoms.sample import SamplePaths

KINDS = list(SAVERS)
WITH_TEXT = ("open_clip", "clip", "siglip")
OF_TRANSFORMERS = ("dinov2", "clip", "siglip")
Saved = Callable[[str], str]
Vectors = NDArray[np.float32]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """The string of the tiny model of a kind, which is saved once."""
    folder, made = tmp_path_factory.mktemp("models"), dict[str, str]()

    def save(kind: str) -> str:
        if kind not in made:
            made[kind] = SAVERS[kind](folder / kind)
        return made[kind]

    return save


@pytest.fixture(scope="module", autouse=True)
def offline_and_small() -> Iterator[None]:
    """No hub is asked, and torchxrayvision's network is a small one."""
    import huggingface_hub.constants

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        if importlib.util.find_spec("torchxrayvision"):
            make_xrv_small(patch)
        yield


def make(name: str) -> TorchEmbedder:
    made = make_embedder(name, device="cpu", precision="fp32", engine="torch")
    assert isinstance(made, TorchEmbedder)
    return made


def place(name: str) -> Path:
    """The file or folder that a string names."""
    return Path(name.partition(":")[2].rpartition("@")[2])


def pictures() -> list[Image.Image]:
    """Coarse patterns of three shapes, on which rounding in resizing does not show."""
    rng = np.random.default_rng(0)
    sizes = [(150, 90), (90, 150), (101, 100)]
    coarse = [Image.fromarray(rng.integers(0, 256, (3, 4), np.uint8)) for _ in sizes]
    return [c.resize(s, Image.Resampling.BICUBIC) for c, s in zip(coarse, sizes, strict=True)]


def embed(embedder: TorchEmbedder, images: list[Image.Image]) -> Vectors:
    return np.concatenate([embedder.embed(embedder.prepare([image])) for image in images])


# --- The vectors are the library's own ------------------------------------------------------------


def by_timm(name: str, image: Image.Image) -> torch.Tensor:
    """timm's network on a letterboxed picture, as the documentation says."""
    import timm

    side, (width, height) = 64, image.size
    scale = side / max(width, height)
    inner = image.resize((round(width * scale), round(height * scale)), Image.Resampling.BICUBIC)
    canvas = Image.new("L", (side, side))
    canvas.paste(inner, ((side - inner.width) // 2, (side - inner.height) // 2))
    model = timm.create_model(f"local-dir:{place(name)}", pretrained=True, num_classes=0).eval()
    return model(normalised(canvas))  # type: ignore[no-any-return]


def by_open_clip(name: str, image: Image.Image) -> torch.Tensor:
    import open_clip

    model, preprocess = open_clip.create_model_from_pretrained(name)
    return model.eval().encode_image(preprocess(image)[None])  # type: ignore[no-any-return]


def by_transformers(name: str, image: Image.Image) -> torch.Tensor:
    t, folder = transformers(), place(name)
    model = t.AutoModel.from_pretrained(folder).eval()
    inputs = t.AutoImageProcessor.from_pretrained(folder)(image.convert("RGB"), return_tensors="pt")
    if hasattr(model, "get_image_features"):
        found = model.get_image_features(**inputs)
        return getattr(found, "pooler_output", found)
    return model(**inputs).pooler_output  # type: ignore[no-any-return]


def by_onnxruntime(name: str, image: Image.Image) -> torch.Tensor:
    """With nothing beside the file: letterboxed, and normalised as for ImageNet."""
    import onnxruntime

    session = onnxruntime.InferenceSession(place(name))
    pixels = make(name).prepare([image])[0]
    rescaled = pixels / np.float32(255) - np.array([0.485, 0.456, 0.406], np.float32)
    rescaled /= np.array([0.229, 0.224, 0.225], np.float32)
    (found,) = session.run(None, {"images": rescaled.transpose(2, 0, 1)[None]})
    return torch.from_numpy(found)


def by_torchxrayvision(name: str, image: Image.Image) -> torch.Tensor:
    import torchxrayvision as xrv
    from safetensors.torch import load_file

    network = xrv_models().DenseNet().eval()
    network.load_state_dict(load_file(place(name)))
    pixels = xrv.utils.normalize(np.asarray(image), 255)[None]
    pixels = xrv.datasets.XRayResizer(64)(xrv.datasets.XRayCenterCrop()(pixels))
    return network.features2(torch.from_numpy(pixels)[None])  # type: ignore[no-any-return,operator]


def normalised(image: Image.Image) -> torch.Tensor:
    pixels = np.asarray(image.convert("RGB"), np.float32) / 255
    return torch.from_numpy((pixels - 0.5) / 0.5).permute(2, 0, 1)[None]


LIBRARIES: dict[str, Callable[[str, Image.Image], torch.Tensor]] = {
    "timm": by_timm,
    "open_clip": by_open_clip,
    **dict.fromkeys(OF_TRANSFORMERS, by_transformers),
    "onnx": by_onnxruntime,
    "xrv": by_torchxrayvision,
}


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_are_those_of_the_library(saved: Saved, kind: str) -> None:
    name = saved(kind)
    vectors = embed(make(name), pictures())
    with torch.inference_mode():
        theirs = torch.cat([LIBRARIES[kind](name, image) for image in pictures()])
    expected = torch.nn.functional.normalize(theirs.float()).numpy()
    apart = np.linalg.norm(expected - expected[[1, 2, 0]], axis=1).min()
    assert np.linalg.norm(vectors - expected, axis=1).max() < 0.1 * apart


@pytest.mark.parametrize("kind", KINDS)
def test_reloaded_it_is_the_same(saved: Saved, kind: str) -> None:
    name = saved(kind)
    first, second = make(name), make(name)
    assert first.name == name
    assert first.fingerprint == second.fingerprint
    assert np.array_equal(embed(first, pictures()), embed(second, pictures()))
    assert embed(make_embedder(name, device="cpu", precision="bf16"), pictures()) == pytest.approx(  # type: ignore[arg-type]
        embed(first, pictures()), abs=0.05
    )


# --- The right string -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "xrv"])
def test_a_folder_alone_is_loaded_by_the_string_that_fits(saved: Saved, kind: str) -> None:
    name = saved(kind)
    folder = place(name) if place(name).is_dir() else place(name).parent
    for alone in {str(folder), str(place(name))}:
        made = make(alone)
        assert made.name == name
        assert made.fingerprint == make(name).fingerprint


PREFIXES = ("timm", "open_clip", "local-dir", "hf-hub", "transformers", "onnx", "xrv")


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("kind", ["timm", "open_clip", "dinov2", "onnx"])
def test_another_library_s_prefix_is_answered_with_the_right_string(
    saved: Saved, kind: str, prefix: str
) -> None:
    name = saved(kind)
    if name.startswith(f"{prefix}:"):
        return
    with pytest.raises(AnnotatorError) as error:
        make(f"{prefix}:{place(name)}")
    assert name in error.value.hint


def test_weights_alone_are_answered_with_the_folder_of_their_model(
    saved: Saved, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind, file in (("dinov2", "model"), ("open_clip", "open_clip_model")):
        name = saved(kind)
        with pytest.raises(AnnotatorError, match="is part of a model of") as error:
            make(f"{place(name) / file}.safetensors")
        assert name in error.value.hint
    folder = place(saved("timm"))
    monkeypatch.chdir(folder.parent)
    for file in (folder / "model.safetensors", f"./{folder.name}/model.safetensors"):
        assert make(str(file)).fingerprint == make(saved("timm")).fingerprint


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("densenet121-res224-all", "xrv:densenet121-res224-all"),
        ("timm:densenet121-res224-all", "xrv:densenet121-res224-all"),
        ("transformers:vit_tiny_patch16_224", "timm:vit_tiny_patch16_224"),
        ("xrv:resnet18", "timm:resnet18"),
        ("open_clip:resnet18@tag", "timm:resnet18"),
        ("timm:ViT-B-32", "open_clip:ViT-B-32@"),
        ("microsoft/rad-dino", "transformers:microsoft/rad-dino"),
        ("transformers:no/such/folder", "ORG/MODEL"),
        ("transformers:/no/such@mean", "ORG/MODEL"),
        ("/no/such/folder", "transformers:FOLDER"),
        ("onnx:no/such.onnx", ""),
    ],
)
def test_names_of_other_libraries(name: str, hint: str) -> None:
    for package in ("open_clip", "transformers", "onnxruntime", "torchxrayvision"):
        pytest.importorskip(package) if package != "open_clip" else make_torchvision_importable()
    with pytest.raises(AnnotatorError) as error:
        make(name)
    assert hint in error.value.hint


def test_a_folder_of_nothing_known(tmp_path: Path) -> None:
    for content in ("", "{", "[]", '{"a": 1}'):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(AnnotatorError, match="is no folder of"):
            make(str(tmp_path))


@pytest.mark.parametrize(
    ("kind", "package", "extra"),
    [
        ("open_clip", "open_clip", "clip"),
        ("dinov2", "transformers", "transformers"),
        ("onnx", "onnxruntime", "onnx"),
        ("xrv", "torchxrayvision", "xrv"),
    ],
)
def test_the_missing_extra_is_named(
    saved: Saved, kind: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, find = saved(kind), importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda p: None if p == package else find(p))
    with pytest.raises(AnnotatorError, match=f"needs {package}") as error:
        make(name)
    assert error.value.hint == f'pip install "cui-annotator[{extra}]"'


# --- How images become squares --------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["dinov2", "onnx"])
def test_squares_as_asked_for(saved: Saved, kind: str) -> None:
    own = make(saved(kind))
    for resize in ("letterbox", "stretch", "crop"):
        made = make(f"{resize}:{saved(kind)}")
        assert made.name == f"{resize}:{saved(kind)}"
        seen = own.fingerprint.preprocess
        if seen["resize"] == resize:
            assert made.fingerprint == own.fingerprint
        else:
            expected = {**seen, "resize": resize}
            expected.pop("crop_pct", None)
            assert made.fingerprint.preprocess == expected
            assert not np.allclose(embed(made, pictures()), embed(own, pictures()), atol=1e-4)


# --- Texts ----------------------------------------------------------------------------------------

LINES = ["a chest x-ray", "Pneumonia", "a very long text " * 30]


def texts_by_library(kind: str, name: str) -> torch.Tensor:
    if kind == "open_clip":
        import open_clip

        model = open_clip.create_model(name, require_pretrained=True).eval()
        return model.encode_text(open_clip.get_tokenizer(name)(LINES))  # type: ignore[no-any-return]
    t, folder = transformers(), place(name)
    model, tokenizer = t.AutoModel.from_pretrained(folder).eval(), t.AutoTokenizer
    tokenizer = tokenizer.from_pretrained(folder)
    if kind == "siglip":  # as it was trained: lower case, full length, no mask
        lower = [line.lower() for line in LINES]
        tokens = tokenizer(lower, padding="max_length", truncation=True, max_length=16)
        found = model.get_text_features(torch.tensor(tokens["input_ids"]))
    else:
        tokens = tokenizer(LINES, padding=True, truncation=True, max_length=16, return_tensors="pt")
        found = model.get_text_features(tokens["input_ids"], tokens["attention_mask"])
    return getattr(found, "pooler_output", found)


@pytest.mark.parametrize("kind", WITH_TEXT)
def test_texts_are_encoded_as_by_the_library(saved: Saved, kind: str) -> None:
    name = saved(kind)
    assert has_text_tower(name) and has_text_tower(str(place(name)))
    embedder = make(name)
    vectors = make_text_tower(name, embedder.fingerprint).embed(LINES)
    assert vectors.shape == (3, embedder.dim)
    with torch.inference_mode():
        expected = torch.nn.functional.normalize(texts_by_library(kind, name)).numpy()
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    squared = make_text_tower(f"stretch:{name}", embedder.fingerprint).embed(LINES[:1])
    np.testing.assert_allclose(squared, vectors[:1], atol=1e-6)


def test_without_a_text_tower(saved: Saved) -> None:
    embedder = make(saved("dinov2"))
    others = [saved(kind) for kind in KINDS if kind not in WITH_TEXT]
    for name in (*others, f"{saved('clip')}@pooled", f"{saved('clip')}+{saved('siglip')}"):
        assert not has_text_tower(name)
        with pytest.raises(AnnotatorError, match="has no text tower"):
            make_text_tower(name, embedder.fingerprint)
    with pytest.raises(AnnotatorError, match="not those that the index was built with"):
        make_text_tower(saved("clip"), embedder.fingerprint)


# --- Through the real commands --------------------------------------------------------------------


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> SamplePaths:
    from annotator.phantoms import write_sample

    return write_sample(tmp_path_factory.mktemp("sample") / "s", n=48, seed=1)


@pytest.fixture
def moved(saved: Saved, tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """The string of a copy of a model, which may be changed."""

    def move(kind: str) -> str:
        name = saved(kind)
        folder = place(name) if place(name).is_dir() else place(name).parent
        copy = shutil.copytree(folder, tmp_path / kind)
        return name.replace(str(folder), str(copy))

    yield move


@pytest.mark.parametrize("kind", KINDS)
def test_build_annotate_serve(
    moved: Callable[[str], str], sample: SamplePaths, tmp_path: Path, kind: str
) -> None:
    pytest.importorskip("fastapi", reason="the extra `service` is not installed")
    from invoking import done, invoke, problem
    from starlette.testclient import TestClient

    from service.app import create_app
    from service.engine import open_engine
    from service.settings import Settings

    name, index = moved(kind), tmp_path / "index"
    side = ["--split", sample.split, "--only"]
    options = ["--index", index, "--device", "cpu", "--no-cache"]
    built = done(
        invoke("build-index", sample.images, sample.concepts, "--embedder", name, *side, "train",
               *options)
    )  # fmt: skip
    assert f"Encoder {name}: " in built
    answer = invoke("annotate", sample.images, *side, "test", *options)
    assert answer.exit_code == 0, answer.output
    run = dict(list(csv.reader(io.StringIO(answer.stdout)))[1:])
    assert len(run) >= 5 and all(run.values())

    settings = Settings(index=str(index), device="cpu", workers=1, encoders=1)
    id_ = min(run)
    with TestClient(create_app(settings, open_engine(settings)), "http://127.0.0.1") as client:
        image = next(Path(sample.images).glob(f"{id_}.*")).read_bytes()
        found = client.post("/v1/annotate", files=[("image", (id_, image))]).json()
        assert {c["cui"] for c in found["results"][0]["concepts"]} == set(run[id_].split(";"))
        if kind in WITH_TEXT:
            assert client.get("/v1/search", params={"q": "chest x-ray", "by": "text"}).is_success

    change_weights(name)
    if kind != "onnx":  # what OpenVINO has kept is still the encoder of the index
        again = invoke("annotate", sample.images, *side, "test", *options)
        assert (again.exit_code, again.stdout) == (0, answer.stdout)
    said = problem(invoke("annotate", sample.images, *side, "test", *options, "--engine", "torch"))
    assert "built with another encoder" in said and "weights: sha256:" in said


def change_weights(name: str) -> None:
    from safetensors.torch import load_file, save_file

    path = place(name)
    if path.suffix == ".onnx":
        write_onnx(path, ["n", 3, 64, 64], seed=1)
        return
    (path,) = [path] if path.is_file() else path.glob("*.safetensors")
    tensors: dict[str, Any] = load_file(path)
    save_file({key: tensor * 2 for key, tensor in tensors.items()}, path, {"format": "pt"})
