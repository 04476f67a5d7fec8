"""Opening a fitted encoder: exact contributions, one trunk, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from test_contributions import picture, total, vector_of

from annotator.encoders.branches import new_branch, trained, trunk_of
from annotator.encoders.efficientnet import StagePooling
from annotator.encoders.fitted_encoder import base_fingerprint
from annotator.encoders.registry import load_encoder, make_embedder
from annotator.encoders.text_tower import has_text_tower
from annotator.encoders.torch_setup import Precision
from annotator.errors import AnnotatorError
from annotator.fitting.folder import FitRecord, working_folder, write_encoder
from annotator.fitting.recipe import Recipe
from annotator.fitting.train import TrainedBranch

BASE = "efficientnet-lite0@64"


def write(out: Path, name: str) -> None:
    """An encoder with two branches whose weights were moved at random."""
    encoder = load_encoder(name)
    side = encoder.preprocess.size
    with torch.inference_mode():
        dim = encoder.model(torch.zeros(1, 3, side, side)).shape[1]
    generator, branches = torch.Generator().manual_seed(0), []
    for _ in range(2):
        moved = {
            key: p.detach() * (1 + 0.1 * torch.randn(p.shape, generator=generator))
            for key, p in trained(new_branch(encoder.model, 0.5)).items()
        }
        length = 1280 if trunk_of(encoder.model) is not None else dim
        branches.append(TrainedBranch(moved, torch.ones(length, 3), torch.zeros(3), [], 0))
    record = FitRecord(
        name, base_fingerprint(encoder, dim), Recipe(), 0, False, ("C1", "C2", "C3"), 4,
        np.zeros((4, 16), np.uint8), np.array([0, 1, 0, 1], np.int16), 4, 3,
    )  # fmt: skip
    with working_folder(out) as working:
        write_encoder(working, out, record, branches, "card", b"picture")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("fitted") / "fitted"
    write(out, BASE)
    return out


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_positions_add_up(folder: Path, precision: Precision) -> None:
    encoder = make_embedder(f"fitted:{folder}", device="cpu", precision=precision, engine="torch")
    assert encoder.blocks[-2:] == (1280, 1280)
    maps = encoder.position_contributions(picture())
    assert maps is not None and len(maps) == len(encoder.blocks)
    assert total(maps, encoder.dim) == pytest.approx(vector_of(encoder, picture()), abs=1e-6)
    assert encoder.patch_contributions(picture()) is None


def test_general_features_are_those_of_the_encoder(folder: Path) -> None:
    fitted, base = (make_embedder(n, device="cpu", precision="fp32") for n in (str(folder), BASE))
    vector, general = vector_of(fitted, picture()), vector_of(base, picture())
    parts = len(fitted.blocks)
    assert vector[: base.dim] * parts**0.5 == pytest.approx(
        general * len(base.blocks) ** 0.5, abs=1e-5
    )
    assert fitted.fitted is not None
    for start, end in fitted.fitted.columns:
        assert np.linalg.norm(vector[start:end]) == pytest.approx(parts**-0.5, abs=1e-6)


def test_trunk_and_branch_are_the_network(folder: Path) -> None:
    general = load_encoder(BASE).model
    assert isinstance(general, StagePooling)
    trunk = trunk_of(general)
    assert trunk is not None
    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found = new_branch(general, 0.5)(trunk(pixels))
        expected = list(general.maps(pixels))[-1].mean((2, 3))
    assert found.numpy() == pytest.approx(expected.numpy(), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_first_parameters_stay(share: float) -> None:
    network = torch.nn.Sequential(*(torch.nn.Linear(4, 4, bias=False) for _ in range(4)))
    names = list(trained(new_branch(network, share)))
    assert names == [f"{i}.weight" for i in range(4)][min(int(4 * share), 3) :]


def test_with_others_and_without_a_text_tower(folder: Path) -> None:
    joint = make_embedder(f"{BASE}+fitted:{folder}", device="cpu", precision="fp32")
    maps = joint.position_contributions(picture())
    assert maps is not None
    assert total(maps, joint.dim) == pytest.approx(vector_of(joint, picture()), abs=1e-6)
    assert joint.fitted is not None and joint.fitted.columns[-1][1] == joint.dim
    assert not has_text_tower(f"fitted:{folder}")


def _config(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        change(config)
        (folder / "config.json").write_text(json.dumps(config))

    return apply


def _tensors(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors")

    return apply


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "no config": (lambda f: (f / "config.json").unlink(), "is no fitted encoder"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "There is no weights file"),
    "cut off": (
        lambda f: (f / "model.safetensors").write_bytes(b"{" * 100) and None,
        "could not be read as weights",
    ),
    "newer": (_config(lambda c: c.update(version=3)), "of version 3; this is for version 2"),
    "no base": (_config(lambda c: c.pop("base")), "config.json is damaged"),
    "other concepts": (_config(lambda c: c["concepts"].pop()), "model.safetensors is damaged"),
    "a tensor less": (
        _tensors(lambda t: t.pop("branches.1.conv_head.weight")),
        "model.safetensors is damaged",
    ),
    "a tensor more": (
        _tensors(lambda t: t.update({"branches.0.blocks.9.weight": torch.zeros(1)})),
        "model.safetensors is damaged",
    ),
    "no head": (_tensors(lambda t: t.pop("head.biases")), "model.safetensors is damaged"),
    "another base": (
        _config(lambda c: c["base"].update(name="efficientnet-lite0@96")),
        "fitted to another efficientnet-lite0@96 than is there now: preprocess.size: 96, not 64",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_is_refused(folder: Path, tmp_path: Path, damage: str) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    change, message = DAMAGES[damage]
    change(copy)
    with pytest.raises(AnnotatorError, match=message):
        make_embedder(f"fitted:{copy}", device="cpu")


def test_there_is_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(AnnotatorError, match="There is no folder or file"):
        make_embedder(f"fitted:{tmp_path / 'nothing'}", device="cpu")
