"""Importing FAISS: its two wheels install the same package, and either may not load."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

# Distributions are looked up in `sys.path` alone, so that what is installed here does not count.
SCRIPT = """
import sys
import importlib.metadata as metadata
sites, found = {sites!r}, metadata.version
def version(name):
    for distribution in metadata.distributions(path=sites):
        if distribution.metadata["Name"] == name:
            return distribution.version
    raise metadata.PackageNotFoundError(name)
metadata.version = version
sys.path[:0] = [*sites, {root!r}]
{before}
from index.search.base import import_faiss
from index.errors import IndexProblem
try:
    import_faiss()
except IndexProblem as problem:
    print(problem)
else:
    print("loaded")
"""
MISSING = "sys.modules['faiss'] = None"  # what makes `import faiss` fail


def message(site: Path, before: str = "") -> str:
    script = SCRIPT.format(sites=[str(site)], root=str(ROOT), before=before)
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return run.stdout


def install(site: Path, name: str, module: str = "") -> None:
    info = site / f"{name.replace('-', '_')}-1.15.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.15.1\n")
    if module:
        (site / "faiss").mkdir()
        (site / "faiss" / "__init__.py").write_text(module)


def test_without_faiss_the_extra_to_install_is_named(tmp_path: Path) -> None:
    text = message(tmp_path, MISSING)
    assert "FAISS is not installed" in text and 'pip install "cui-annotator[cpu]"' in text


def test_both_wheels_beside_each_other_are_refused(tmp_path: Path) -> None:
    install(tmp_path, "faiss-cpu", "knn = 1")
    install(tmp_path, "faiss-gpu")
    text = message(tmp_path)
    assert "both installed" in text and "pip uninstall faiss-cpu faiss-gpu" in text


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ("ImportError('libcudart.so.12: cannot open shared object file')", "libcudart.so.12"),
        ("AttributeError('module faiss has no attribute Index')", "has no attribute Index"),
        ("OSError('undefined symbol')", "undefined symbol"),
    ],
)
def test_a_gpu_wheel_that_does_not_load_says_why(tmp_path: Path, error: str, reason: str) -> None:
    install(tmp_path, "faiss-gpu", f"raise {error}")
    text = message(tmp_path)
    assert f"FAISS does not load: {reason}" in text.replace("module faiss ", "")
    assert "CUDA 12" in text and "cui-annotator[cpu]" in text


def test_a_wheel_that_loads_is_used(tmp_path: Path) -> None:
    install(tmp_path, "faiss-cpu", "knn = 1")
    assert message(tmp_path).strip() == "loaded"
