"""Choices about torch: the torchvision mismatch in fresh processes, device, precision, threads."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
import torch

from annotator.encoders.torch_setup import choose_device, choose_precision, threads_per_operation
from annotator.errors import AnnotatorError


def run(code: str, *, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run `code` in a fresh process, with `path` searched first for packages."""
    first = f"import sys; sys.path.insert(0, {str(path)!r})\n" if path else ""
    return subprocess.run(
        [sys.executable, "-c", first + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def stub(folder: Path, code: str) -> Path:
    """A folder with a package `torchvision` that runs `code` when it is imported."""
    package = folder / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text(textwrap.dedent(code), encoding="utf-8")
    return folder


# What torchvision does when its compiled part did not load, reduced to its essence.
MISMATCHED = """
    import torch
    import torchvision.inner
    torch.library.register_fake("torchvision::nms")(lambda *args: None)
    works = True
"""


def test_the_installed_torchvision_imports() -> None:
    """Whether it was built for this torch or not, timm and open_clip can be imported after."""
    result = run(
        """
        from annotator.encoders.torch_setup import make_torchvision_importable
        make_torchvision_importable()
        make_torchvision_importable()
        import timm, torchvision.transforms, importlib.util
        if importlib.util.find_spec("open_clip"):
            import open_clip
        print(torchvision.__version__)
        """
    )
    assert result.returncode == 0, result.stderr


def test_a_mismatched_torchvision_is_mended(tmp_path: Path) -> None:
    stub(tmp_path, MISMATCHED)
    (tmp_path / "torchvision" / "inner.py").touch()
    plain = run("import torchvision", path=tmp_path)
    assert "operator torchvision::nms does not exist" in plain.stderr
    mended = run(
        """
        from annotator.encoders.torch_setup import make_torchvision_importable
        make_torchvision_importable()
        import torchvision
        assert torchvision.works and torchvision.__file__.startswith(sys.path[0])
        """,
        path=tmp_path,
    )
    assert mended.returncode == 0, mended.stderr


def test_a_healthy_torchvision_and_another_error_are_left_alone(tmp_path: Path) -> None:
    healthy = stub(tmp_path, "import builtins\ncount = builtins.n = getattr(builtins, 'n', 0) + 1")
    result = run(
        """
        import torch
        from annotator.encoders.torch_setup import make_torchvision_importable
        make_torchvision_importable()
        import torchvision
        assert torchvision.count == 1 and not hasattr(torch.ops.torchvision, "nms")
        """,
        path=healthy,
    )
    assert result.returncode == 0, result.stderr
    (tmp_path / "torchvision" / "__init__.py").write_text("raise RuntimeError('something else')")
    result = run(
        """
        from annotator.encoders.torch_setup import make_torchvision_importable
        make_torchvision_importable()
        """,
        path=tmp_path,
    )
    assert result.stderr.strip().endswith("RuntimeError: something else")


def test_device() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    if torch.cuda.is_available():
        assert choose_device("auto") == choose_device("cuda") == torch.device("cuda")
        return
    assert choose_device("auto") == torch.device("cpu")
    with pytest.raises(AnnotatorError, match="torch sees no CUDA device") as error:
        choose_device("cuda")
    assert torch.__version__ in error.value.hint


def test_precision() -> None:
    cpu = torch.device("cpu")
    assert choose_precision("fp32", cpu) == "fp32"
    assert choose_precision("bf16", cpu) == "bf16"
    flags = Path("/proc/cpuinfo")
    if flags.exists() and "flags" in (text := flags.read_text()):
        native = "avx512_bf16" in text or "amx_tile" in text
        assert choose_precision("auto", cpu) == ("bf16" if native else "fp32")
    else:
        assert choose_precision("auto", cpu) in ("bf16", "fp32")


def test_threads_are_restored_also_after_overlapping_uses() -> None:
    before = torch.get_num_threads()
    inside, outside = threading.Event(), threading.Event()
    seen: list[int] = []

    def second() -> None:
        with threads_per_operation(before + 2):
            inside.set()
            outside.wait(10)
        seen.append(torch.get_num_threads())

    thread = threading.Thread(target=second)
    with pytest.raises(KeyError), threads_per_operation(before + 1):
        assert torch.get_num_threads() == before + 1
        thread.start()
        assert inside.wait(10)
        raise KeyError
    outside.set()
    thread.join()
    fresh = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    fresh.start()
    fresh.join()
    assert [torch.get_num_threads(), *seen] == [before] * 3


def test_describing_the_package_does_not_import_torch() -> None:
    """`import torch` takes seconds; only what embeds may cost them."""
    code = """
        import sys
        import annotator.encoders.cache, annotator.encoders.fingerprint
        import annotator.encoders.preprocess
        print("torch" in sys.modules)
    """
    result = run(code)
    assert result.stdout.strip() == "False", result.stderr
