"""Maps on disk: the right copy of the right image, bounded, and gone on with after a kill."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from annotator.encoders.preprocess import Preprocess
from annotator.errors import AnnotatorError, ImageError
from annotator.fitting.maps import Maps, Trunk, make_maps
from annotator.images.ref import ImageRef, unusable

PREPROCESS = Preprocess(16, "letterbox", "bicubic", (0.5,) * 3, (0.5,) * 3)
CPU = torch.device("cpu")


def copies(frame: Image.Image, ref: ImageRef) -> NDArray[np.uint8]:
    """The image, and its negative."""
    pixels = PREPROCESS(frame)
    return np.stack([pixels, 255 - pixels])


@pytest.fixture
def images(tmp_path: Path) -> list[ImageRef]:
    rng = np.random.default_rng(0)
    refs = []
    for i in range(9):
        path = tmp_path / f"i{i}.png"
        Image.fromarray(rng.integers(0, 256, (20, 20), np.uint8)).save(path)
        refs.append(ImageRef(path.stem, str(path), path.read_bytes))
    refs[4] = unusable("i4", "i4.png", "it is broken")
    return refs


def make(images: list[ImageRef], folder: Path, trunk: Trunk | None = None) -> Maps:
    folder.mkdir(exist_ok=True)
    trunk = trunk or Trunk(None, PREPROCESS, CPU)
    return make_maps(images, trunk, copies, folder, smallest_side=16, workers=2)


def conv() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 5, 3, stride=2), nn.ReLU()).eval()


def test_a_copy_is_that_of_the_image(images: list[ImageRef], tmp_path: Path) -> None:
    network = conv()
    maps = make(images, tmp_path / "w", Trunk(conv(), PREPROCESS, CPU))
    assert list(maps.rows) == [0, 1, 2, 3, 5, 6, 7, 8] and maps.copies == 2
    assert list(maps.failed) == ["i4.png"] and isinstance(maps.failed["i4.png"], ImageError)
    found = maps.read(np.array([5, 0]), np.array([1, 0]))
    pixels = np.stack(
        [copies(Image.open(images[row].where), images[row])[c] for row, c in ((6, 1), (0, 0))]
    )
    with torch.inference_mode():
        expected = network(torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1)
    assert found.numpy() == pytest.approx(expected.numpy(), abs=2e-3)  # half precision


def test_without_a_trunk_pixels_are_kept(images: list[ImageRef], tmp_path: Path) -> None:
    maps = make(images, tmp_path / "w")
    assert maps.dtype == np.uint8
    negative, positive = maps.read(np.array([2, 2]), np.array([1, 0]))
    assert negative.numpy() == pytest.approx(-positive.numpy(), abs=1e-6)


def test_what_was_half_written_is_made_again(images: list[ImageRef], tmp_path: Path) -> None:
    whole = make(images, tmp_path / "whole")
    for cut_maps, cut_log in ((0, 7), (100, 0), (5000, 40), (10**6, 10**6)):
        folder = tmp_path / f"cut{cut_maps}"
        make(images, folder)
        for name, cut in (("maps.bin", cut_maps), ("maps.jsonl", cut_log)):
            data = (folder / name).read_bytes()
            (folder / name).write_bytes(data[: max(0, len(data) - cut)])
        again = make(images, folder)
        assert again.rows == whole.rows and list(again.failed) == ["i4.png"]
        assert again.path.read_bytes() == whole.path.read_bytes()


def test_no_image_can_be_used(images: list[ImageRef], tmp_path: Path) -> None:
    with pytest.raises(AnnotatorError, match=r"None of the 1 images could be used.*it is broken"):
        make(images[4:5], tmp_path / "w")
