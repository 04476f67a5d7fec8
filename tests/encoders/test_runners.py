"""Which runner is taken, and what is said where its packages are missing."""

from __future__ import annotations

import functools
import os
import sys
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from annotator.cli import cli
from annotator.encoders.local_runner import embed_images, in_batches
from annotator.encoders.runners import make_runner
from annotator.errors import AnnotatorError
from annotator.images.ref import ImageRef

if TYPE_CHECKING:
    from annotator.encoders.torch_embedder import TorchEmbedder


def test_local_is_the_default() -> None:
    for runner in (make_runner(), make_runner("local", address="not used")):
        assert isinstance(runner, functools.partial) and runner.func is embed_images


def test_unknown_runners_are_named() -> None:
    with pytest.raises(AnnotatorError, match="Unknown runner 'spark'") as caught:
        make_runner("spark")
    assert "local or ray" in caught.value.hint


@pytest.mark.parametrize("command", ["build-index", "add", "annotate"])
def test_without_ray_the_error_names_the_extra(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [m for m in sys.modules if m.split(".")[0] == "ray"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ray", None)
    result = CliRunner().invoke(cli, [command, "images", "--runner", "ray"])
    assert result.exit_code == 1
    assert "The Ray runner needs the package ray" in result.stderr
    assert 'pip install "cui-annotator[ray]"' in result.stderr


def test_no_cluster_at_the_address(tiny_embedder: TorchEmbedder) -> None:
    if os.environ.get("ANNOTATOR_REQUIRE_RAY") != "1":
        pytest.importorskip("ray.data", reason="the extra `ray` is not installed")
    runner = make_runner("ray", address="127.0.0.1:1")
    with pytest.raises(AnnotatorError, match=r"no connection to 127\.0\.0\.1:1") as caught:
        list(runner([ImageRef("a", "a.png", bytes)], tiny_embedder))
    assert "--ray-address" in caught.value.hint


def test_an_address_belongs_to_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    result = CliRunner().invoke(cli, ["annotate", "images", "--ray-address", "auto"])
    assert result.exit_code == 2
    assert "--ray-address requires --runner ray" in result.stderr
    monkeypatch.setenv("RAY_ADDRESS", "auto")  # may be set for others
    result = CliRunner().invoke(cli, ["annotate", "/no/such/images"])
    assert result.exit_code == 1
    assert "no such file or folder" in result.stderr


@given(n=st.integers(0, 300), size=st.integers(1, 40), workers=st.integers(1, 20))
def test_batches_keep_the_order_and_the_bounds(n: int, size: int, workers: int) -> None:
    refs = [ImageRef(str(i), "", bytes) for i in range(n)]
    batches = in_batches(refs, size, workers)
    assert [ref for batch in batches for ref in batch] == refs
    assert all(1 <= len(batch) <= size for batch in batches)
    assert len(batches) >= min(n, workers) or n < workers * size
