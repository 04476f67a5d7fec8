"""Makers: every way to name an encoder loads the weights that it names, or says why not."""

from __future__ import annotations

import importlib.util
import json
import pickle
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from annotator.encoders.embedder import Embedder
from annotator.encoders.fingerprint import weights_digest
from annotator.encoders.preprocess import DECODER_VERSION
from annotator.encoders.registry import make_embedder, split_names
from annotator.encoders.torch_embedder import TorchEmbedder
from annotator.encoders.torch_setup import make_torchvision_importable
from annotator.encoders.weights import read_weights
from annotator.errors import AnnotatorError

NEEDS_OPEN_CLIP = "open_clip is an optional extra"


def make(name: str) -> TorchEmbedder:
    made = make_embedder(name, device="cpu", precision="fp32", engine="torch")
    assert isinstance(made, TorchEmbedder)
    return made


def timm_model(architecture: str, **options: Any) -> Any:
    """A timm network with random weights and statistics."""
    make_torchvision_importable()
    import timm

    torch.manual_seed(0)
    model = timm.create_model(architecture, **options).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 2.0)  # type: ignore[arg-type]
    return model


def save(tensors: dict[str, Tensor], path: Path) -> Path:
    if path.suffix == ".safetensors":
        from safetensors.torch import save_file

        save_file({name: tensor.clone() for name, tensor in tensors.items()}, path)
    else:
        torch.save(tensors, path)
    return path


def check_vectors(embedder: Embedder, model: nn.Module) -> None:
    """The vectors are those of `model` in plain torch, by the recorded mean and std."""
    size = embedder.image_size
    pixels = np.random.default_rng(0).integers(0, 256, (3, size, size, 3), np.uint8)
    recorded = embedder.fingerprint.preprocess
    mean, std = (torch.tensor(recorded[key]).view(3, 1, 1) for key in ("mean", "std"))
    with torch.inference_mode():
        x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
        expected = nn.functional.normalize(model((x - mean) / std)).numpy()
    np.testing.assert_allclose(embedder.embed(pixels), expected, atol=1e-5)


# Settings that are no network's own, as they are given and as they are recorded.
OWN = {"interpolation": "bilinear", "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
RECORDED = {**OWN, "resize": "letterbox", "decoder": DECODER_VERSION}


# --- timm -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "num_classes", "change"),
    [
        ("w.safetensors", 0, lambda tensors: tensors),
        ("w.pth", 7, lambda tensors: tensors),
        ("w.pt", 7, lambda tensors: {"state_dict": {f"module.{n}": t for n, t in tensors.items()}}),
        ("w.bin", 0, lambda tensors: {"epoch": 3, "model": tensors}),
        ("w.pth", 0, lambda ts: {n: t for n, t in ts.items() if "num_batches_tracked" not in n}),
    ],
)
def test_timm_model_at_file(
    tmp_path: Path, file: str, num_classes: int, change: Callable[[dict[str, Tensor]], Any]
) -> None:
    model = timm_model("resnet10t", num_classes=num_classes)
    path = save(change(model.state_dict()), tmp_path / file)
    embedder = make(f"timm:resnet10t@{path}")
    assert embedder.dim == 512
    assert embedder.image_size == model.pretrained_cfg["input_size"][-1]
    assert embedder.fingerprint.architecture == "timm resnet10t"
    assert embedder.fingerprint.preprocess["mean"] == list(model.pretrained_cfg["mean"])
    model.reset_classifier(0)
    check_vectors(embedder, model)
    assert embedder.fingerprint.weights == weights_digest(model)


def test_a_file_with_its_config_beside_it(tmp_path: Path) -> None:
    """timm's repository layout, with settings that are not the architecture's own."""
    model = timm_model("vit_tiny_patch16_224", num_classes=3, img_size=64)
    path = save(model.state_dict(), tmp_path / "model.safetensors")
    config = {
        "architecture": "vit_tiny_patch16_224",
        "num_classes": 3,
        "model_args": {"img_size": 64},
        "pretrained_cfg": {"input_size": [3, 64, 64], **OWN},
    }
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    embedder = make(str(path))
    assert embedder.dim == 192
    assert embedder.fingerprint.architecture == "timm vit_tiny_patch16_224"
    assert embedder.fingerprint.preprocess == {"size": 64, **RECORDED}
    model.reset_classifier(0)
    check_vectors(embedder, model)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (None, "does not say which network it is for"),
        ("{", "is not JSON"),
        ("[]", 'has no "architecture"'),
        ("{}", 'has no "architecture"'),
        ('{"architecture": "resnet_of_mine", "pretrained_cfg": {}}', "resnet_of_mine"),
    ],
)
def test_a_file_without_a_good_config(tmp_path: Path, config: str | None, said: str) -> None:
    path = save({"weight": torch.zeros(1)}, tmp_path / "model.safetensors")
    if config is not None:
        (tmp_path / "config.json").write_text(config, encoding="utf-8")
    with pytest.raises(AnnotatorError, match=said):
        make(str(path))


# --- files that do not fit ------------------------------------------------------------------------


class Runs:
    """Unpickling this creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_a_checkpoint_is_never_unpickled(tmp_path: Path) -> None:
    ran, path = tmp_path / "ran", tmp_path / "w.pth"
    names = [f"timm:resnet10t@{path}"]
    make_torchvision_importable()
    if importlib.util.find_spec("open_clip"):
        names.append(f"open_clip:RN50@{path}")
    content = {"state_dict": timm_model("resnet10t").state_dict(), "args": Runs(ran)}
    for write in (torch.save, lambda c, p: p.write_bytes(pickle.dumps(c, protocol=2))):
        write(content, path)
        for name in names:
            with pytest.raises(AnnotatorError, match=r"could not be (read|loaded)"):
                make(name)
    assert not ran.exists()
    pickle.loads(path.read_bytes())
    assert ran.exists()  # so it would have run


@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        (".safetensors", b""),
        (".safetensors", b"not weights at all"),
        (".pth", b""),
        (".pth", b"not weights at all"),
        (".pth", b"\x80\x02}q\x00."),
    ],
)
def test_files_that_are_no_weights(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    with pytest.raises(AnnotatorError, match=path.name) as error:
        make(f"timm:resnet10t@{path}")
    assert str(path) in error.value.message


def test_tensors_of_another_kind(tmp_path: Path) -> None:
    for content in ([torch.zeros(1)], {"a": 1}, {"optimizer": {"a": torch.zeros(1)}}):
        torch.save(content, tmp_path / "w.pth")
        with pytest.raises(AnnotatorError, match="is not a state dict"):
            read_weights(tmp_path / "w.pth")


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    """No tensor is left as it was drawn at random."""
    path = save(timm_model("resnet14t").state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(AnnotatorError, match=r"does not fit .* tensors are missing") as error:
        make(f"timm:vit_tiny_patch16_224@{path}")
    assert str(path) in error.value.message
    tensors = timm_model("resnet10t").state_dict()
    path = save({**tensors, "conv1.0.weight": torch.zeros(1, 2, 3)}, tmp_path / "wrong.pth")
    with pytest.raises(AnnotatorError, match=r"0 tensors are missing and 1 have.*conv1\.0\.weight"):
        make(f"timm:resnet10t@{path}")
    del tensors["layer4.0.conv1.weight"]
    path = save(tensors, tmp_path / "less.safetensors")
    with pytest.raises(AnnotatorError, match=r"1 tensors are missing.*layer4\.0\.conv1\.weight"):
        make(f"timm:resnet10t@{path}")


@pytest.mark.parametrize(
    ("name", "said", "hint"),
    [
        ("", "Unknown encoder ''", "timm:MODEL"),
        ("resnet18", "Unknown encoder 'resnet18'", "timm:resnet18"),
        ("timm:", "Unknown encoder 'timm:'", "timm:MODEL"),
        ("keras:resnet18", "Unknown encoder", "timm:MODEL"),
        ("timm:resnet_of_mine", "timm has no model 'resnet_of_mine'", "timm.list_models"),
        ("timm:efficientnet_lite", "timm has no model", "efficientnet_lite0"),
        ("timm:resnet18@nowhere.pth", "There is no weights file nowhere.pth", ""),
        ("nowhere.safetensors", "There is no weights file nowhere.safetensors", ""),
        ("open_clip:ViT-B-32", "does not say which weights", "@TAG"),
    ],
)
def test_names_that_lead_nowhere(name: str, said: str, hint: str) -> None:
    with pytest.raises(AnnotatorError, match=said) as error:
        make(name)
    assert hint in error.value.hint


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No way out: the hub's client is told so, and sockets fail."""
    import huggingface_hub.constants

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(socket.socket, "connect", refuse)
    yield


@pytest.mark.parametrize(
    "name", ["timm:resnet10t", "hf-hub:nobody/nothing", "open_clip:ViT-B-32@laion2b_s34b_b79k"]
)
def test_without_network_the_error_is_clear(offline: None, name: str) -> None:
    if not name.startswith("timm"):
        pytest.importorskip("open_clip", reason=NEEDS_OPEN_CLIP)
    with pytest.raises(AnnotatorError, match="could not be loaded") as error:
        make(name)
    assert name in error.value.message
    assert "network" in error.value.hint


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("efficientnet-lite0", ["efficientnet-lite0"]),
        ("efficientnet-lite0+timm:resnet10t", ["efficientnet-lite0", "timm:resnet10t"]),
        ("timm:a@/w+x/f.pth+efficientnet-lite0@64", ["timm:a@/w+x/f.pth", "efficientnet-lite0@64"]),
        ("transformers:/m+n/dino+onnx:/a.onnx", ["transformers:/m+n/dino", "onnx:/a.onnx"]),
        ("efficientnet-lite0+nonsense", ["efficientnet-lite0", "nonsense"]),
        ("crop:timm:a+timm:b", ["crop:timm:a", "timm:b"]),
    ],
)
def test_names_are_joined_by_a_plus_that_is_in_no_path(name: str, parts: list[str]) -> None:
    assert split_names(name) == parts


def test_timm_s_own_crop_may_be_asked_for(tmp_path: Path) -> None:
    model = timm_model("resnet10t", num_classes=0)
    path = save(model.state_dict(), tmp_path / "w.safetensors")
    letterboxed, cropped = (make(f"{how}timm:resnet10t@{path}") for how in ("", "crop:"))
    assert letterboxed.fingerprint.preprocess["resize"] == "letterbox"
    assert cropped.fingerprint.preprocess["resize"] == "crop"
    assert cropped.fingerprint.preprocess["crop_pct"] == model.pretrained_cfg["crop_pct"] < 1
    own = ("input_size", "mean", "std", "interpolation", "crop_pct")
    config = {"pretrained_cfg": {key: model.pretrained_cfg[key] for key in own}}
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "resnet10t", **config}))
    (tmp_path / "w.safetensors").rename(tmp_path / "model.safetensors")
    assert make(f"timm:{tmp_path}").fingerprint == letterboxed.fingerprint
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(AnnotatorError, match="is no folder of timm: it lacks weights"):
        make(f"timm:{tmp_path}")


# --- open_clip ------------------------------------------------------------------------------------

TEXT = {"context_length": 8, "vocab_size": 32, "width": 16, "heads": 2, "layers": 1}
VIT = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": TEXT,
}
RESNET = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 16, "head_width": 64},
    "text_cfg": TEXT,
}
TIMM_TOWER = {  # like BiomedCLIP's
    "embed_dim": 24,
    "vision_cfg": {
        "timm_model_name": "resnet10t",
        "timm_model_pretrained": True,
        "timm_pool": "",
        "timm_proj": "linear",
        "image_size": 64,
    },
    "text_cfg": TEXT,
}
COCA = {
    **VIT,
    "vision_cfg": {
        **VIT["vision_cfg"],  # type: ignore[dict-item]
        "attentional_pool": True,
        "attn_pooler_heads": 2,
        "attn_pooler_queries": 4,
        "output_tokens": True,
    },
    "text_cfg": {**TEXT, "embed_cls": True, "output_tokens": True},
    "multimodal_cfg": {**TEXT, "attn_pooler_heads": 2},
    "custom_text": True,
}


def clip_model(config: dict[str, Any], folder: Path) -> Any:
    """A random open_clip network of this configuration, saved in the layout of a repository."""
    pytest.importorskip("open_clip", reason=NEEDS_OPEN_CLIP)
    make_torchvision_importable()
    import open_clip

    folder.mkdir()
    path = folder / f"{folder.name}.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    open_clip.add_model_config(path)
    torch.manual_seed(0)
    model = open_clip.create_model(folder.name).eval()
    save(model.state_dict(), folder / "open_clip_model.safetensors")
    return model


@pytest.mark.parametrize(
    ("config", "size"),
    [(VIT, 32), (RESNET, 32), (TIMM_TOWER, 64), (COCA, 32)],
    ids=["vit", "resnet", "timm", "coca"],
)
def test_open_clip_repository_on_disk(
    tmp_path: Path, offline: None, config: dict[str, Any], size: int
) -> None:
    folder = tmp_path / f"tiny-repository-{len(json.dumps(config))}"
    model = clip_model(config, folder)
    described = {"model_cfg": config, "preprocess_cfg": {**OWN, "resize_mode": "longest"}}
    (folder / "open_clip_config.json").write_text(json.dumps(described), encoding="utf-8")
    embedder = make(f"local-dir:{folder}")
    assert embedder.dim == 24
    assert embedder.fingerprint.preprocess == {"size": size, **RECORDED}
    check_vectors(embedder, _Image(model))
    elsewhere = shutil.copytree(folder, tmp_path / "elsewhere")
    assert make(f"local-dir:{elsewhere}").fingerprint == embedder.fingerprint


class _Image(nn.Module):
    def __init__(self, clip: Any) -> None:
        super().__init__()
        self.clip = clip

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.clip.encode_image(x)
        return features


def test_open_clip_model_at_checkpoint(tmp_path: Path, offline: None) -> None:
    model = clip_model(VIT, tmp_path / "tiny-checkpoint")
    tensors = {f"module.{n}": t for n, t in model.state_dict().items()}
    path = save({"epoch": 1, "state_dict": tensors}, tmp_path / "epoch_1.pt")  # type: ignore[dict-item]
    embedder = make(f"open_clip:tiny-checkpoint@{path}")
    assert embedder.name == f"open_clip:tiny-checkpoint@{path}"
    assert embedder.fingerprint.preprocess["resize"] == "crop"
    assert embedder.fingerprint.preprocess["mean"] == [0.48145466, 0.4578275, 0.40821073]
    check_vectors(embedder, _Image(model))


def test_the_activation_is_part_of_the_fingerprint(tmp_path: Path, offline: None) -> None:
    """The same weights with another activation or number of heads give other vectors."""
    model = clip_model(VIT, tmp_path / "tiny-gelu")
    other = clip_model({**VIT, "quick_gelu": True}, tmp_path / "tiny-quickgelu")
    other.load_state_dict(model.state_dict())
    path = tmp_path / "tiny-gelu" / "open_clip_model.safetensors"
    plain, quick = (make(f"open_clip:tiny-{kind}@{path}") for kind in ("gelu", "quickgelu"))
    check_vectors(plain, _Image(model))
    check_vectors(quick, _Image(other))
    assert plain.fingerprint.weights == quick.fingerprint.weights
    (difference,) = plain.fingerprint.differences(quick.fingerprint)
    assert difference.startswith("architecture:")


def test_weights_of_another_activation_are_refused(
    tmp_path: Path, offline: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """open_clip would warn and go on, with vectors that are worse than they need be."""
    pretrained = pytest.importorskip("open_clip.pretrained", reason=NEEDS_OPEN_CLIP)
    clip_model(VIT, tmp_path / "tiny-tag")
    tag = {
        "file": str(tmp_path / "tiny-tag" / "open_clip_model.safetensors"),
        "quick_gelu": True,
    }
    monkeypatch.setitem(pretrained._PRETRAINED, "tiny-tag", {"here": tag})
    with pytest.raises(AnnotatorError, match="QuickGELU mismatch"):
        make("open_clip:tiny-tag@here")
    tag["quick_gelu"] = False
    assert make("open_clip:tiny-tag@here").dim == 24


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("open_clip:ViT-of-mine@tag", "ViT-of-mine"),
        ("open_clip:ViT-B-32@no-such-tag", "no-such-tag"),
        ("local-dir:/no/such/folder", "no folder or file /no/such/folder"),
        ("local-dir:{without_weights}", "could not be loaded"),
    ],
)
def test_open_clip_names_that_lead_nowhere(
    tmp_path: Path, offline: None, name: str, said: str
) -> None:
    pytest.importorskip("open_clip", reason=NEEDS_OPEN_CLIP)
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": VIT}))
    with pytest.raises(AnnotatorError, match=said):
        make(name.format(without_weights=tmp_path))


def test_the_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(AnnotatorError, match="needs open_clip") as error:
        make("hf-hub:org/model")
    assert error.value.hint == 'pip install "cui-annotator[clip]"'
