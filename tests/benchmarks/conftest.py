"""The benchmarks are run from a checkout: its root has to be on the path."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for results in place of the real one."""
    from benchmarks import records

    monkeypatch.setattr(records, "RESULTS", tmp_path / "results")
    return tmp_path / "results"


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory):
    from annotator.phantoms import write_sample

    return write_sample(tmp_path_factory.mktemp("sample") / "sample", n=60)


@pytest.fixture(scope="session")
def tiny_network(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A network of timm that is quick, with random weights."""
    from annotator.encoders.torch_setup import make_torchvision_importable

    make_torchvision_importable()
    import timm
    import torch
    from safetensors.torch import save_file

    path = tmp_path_factory.mktemp("network") / "tiny.safetensors"
    torch.manual_seed(0)
    save_file(timm.create_model("test_resnet").state_dict(), path)
    return f"timm:test_resnet@{path}"
