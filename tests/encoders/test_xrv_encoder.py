"""Networks of torchxrayvision: whose weights are taken, and whose are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import make_xrv_small, save_xrv, xrv_models

from annotator.encoders.registry import make_embedder
from annotator.errors import AnnotatorError

WEIGHTS = "densenet121-res224-nih"


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    make_xrv_small(monkeypatch)


def in_cache(monkeypatch: pytest.MonkeyPatch, folder: Path, weights: str) -> Path:
    """Where the library keeps its copy of these weights, in a home of its own."""
    monkeypatch.setenv("HOME", str(folder))
    models = xrv_models()
    home = Path(models.utils.get_cache_dir())
    home.mkdir(parents=True)
    return home / Path(models.model_urls[weights]["weights_url"]).name


def test_a_pickled_model_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the library publishes its DenseNets; the hint says how to get at their tensors."""
    path = in_cache(monkeypatch, tmp_path, WEIGHTS)
    with pytest.raises(AnnotatorError, match="is published as a pickled model"):
        make_embedder(f"xrv:{WEIGHTS}", device="cpu")  # and is not downloaded
    torch.save(xrv_models().DenseNet(), path)
    for name in (f"xrv:{WEIGHTS}", f"xrv:{WEIGHTS}@{path}"):
        with pytest.raises(AnnotatorError, match="could not be read as weights"):
            make_embedder(name, device="cpu")
    with pytest.raises(AnnotatorError) as error:
        make_embedder(f"xrv:{WEIGHTS}", device="cpu")
    assert f"xrv:{WEIGHTS}@{WEIGHTS}.safetensors" in error.value.hint


def test_the_library_s_own_copy_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A state dict, as it publishes its ResNet."""
    from torchvision.models import resnet50

    path = in_cache(monkeypatch, tmp_path, "resnet50-res512-all")
    torch.manual_seed(0)
    network = resnet50(num_classes=18).eval()
    network.conv1 = torch.nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    torch.save(network.state_dict(), path)
    monkeypatch.setitem(xrv_models().model_urls["resnet50-res512-all"], "input_resolution", 96)
    encoder = make_embedder("xrv:resnet50-res512-all", device="cpu", precision="fp32")
    assert (encoder.dim, encoder.image_size) == (2048, 96)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 96, 96, 3), np.uint8)
    network.fc = torch.nn.Identity()
    with torch.inference_mode():
        grey = torch.from_numpy(pixels).float().mean(dim=3)[:, None]
        expected = torch.nn.functional.normalize(network((grey / 255 * 2 - 1) * 1024))
    np.testing.assert_allclose(encoder.embed(pixels), expected.numpy(), atol=1e-5)


def test_positions_add_up(tmp_path: Path) -> None:
    from PIL import Image

    encoder = make_embedder(save_xrv(tmp_path / "m"), device="cpu", precision="fp32")
    coarse = np.random.default_rng(0).integers(0, 256, (9, 12), np.uint8)
    image = Image.fromarray(coarse).resize((120, 90))
    (found,) = encoder.position_contributions(image) or [None]
    (vector,) = encoder.embed(encoder.prepare([image]))
    assert found is not None
    assert found.values.sum(axis=(0, 1)) == pytest.approx(vector, abs=1e-5)


def test_names_that_it_has_not(tmp_path: Path) -> None:
    with pytest.raises(AnnotatorError, match="has no weights 'chexnet'") as error:
        make_embedder("xrv:chexnet", device="cpu")
    assert WEIGHTS in error.value.hint
    with pytest.raises(AnnotatorError, match="There is no weights file"):
        make_embedder(f"xrv:{WEIGHTS}@{tmp_path / 'none.safetensors'}", device="cpu")
