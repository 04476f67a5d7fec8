"""Importing a module loads nothing heavy; which part may import which is in pyproject.toml."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import annotator
import index

ROOT = Path(__file__).parents[1]
HEAVY = {"torch", "torchvision", "timm", "open_clip", "pandas", "faiss", "matplotlib", "pyarrow"}
HEAVY |= {"pydicom", "nibabel", "sklearn", "skimage", "tqdm", "umap", "numba", "jinja2"}
HEAVY |= {
    "transformers",
    "onnxruntime",
    "openvino",
    "torchxrayvision",
    "huggingface_hub",
    "safetensors",
}
HEAVY |= {"openvino", "ray", "fsspec", "s3fs", "gcsfs", "pymilvus"}
# What the extra `service` installs; loaded by `annotator serve` alone.
SERVICE = {"fastapi", "starlette", "pydantic", "pydantic_settings", "uvicorn", "h11"}
SERVICE |= {"prometheus_client", "python_multipart"}
MAY_LOAD = {
    "annotator/encoders": {"torch"},
    "annotator/fitting": {"torch"},
    "annotator/images/dicom/worker.py": {"pydicom"},  # a process of its own
    "annotator/knn/estimator.py": {"sklearn"},  # whose base classes it has
}


def imported_at_the_top(path: Path) -> Iterator[str]:
    """Top-level names of the modules that a file imports when it is itself imported."""
    waiting: list[ast.AST] = [ast.parse(path.read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            yield (node.module or "").partition(".")[0]
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting.extend(node.orelse)
        else:
            waiting.extend(ast.iter_child_nodes(node))


def test_nothing_heavy_is_imported_at_the_top() -> None:
    paths = [
        path
        for package in ("annotator", "index", "service")
        for path in ROOT.glob(f"{package}/**/*.py")
    ]
    assert len(paths) > 50
    for path in paths:
        name = path.relative_to(ROOT).as_posix()
        allowed = set().union(
            *(MAY_LOAD.get(place, set()) for place in (name, str(Path(name).parent)))
        )
        assert not (set(imported_at_the_top(path)) & HEAVY) - allowed, name


def run(script: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=cwd)


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import annotator.cli, index", {"numpy", "PIL", "service"} | SERVICE | HEAVY),
        ("import service.server", {"PIL"} | HEAVY),
        ("from annotator import evaluate, find_images, read_collection, Voting", HEAVY),
    ],
)
def test_what_an_import_does_not_load(statement: str, absent: set[str]) -> None:
    done = run(f"import sys; {statement}; print(*sys.modules)")
    assert done.returncode == 0, done.stderr
    assert not set(done.stdout.split()) & absent


@pytest.mark.parametrize("taken", ["index", "service"])
def test_a_package_that_takes_the_place_of_a_sibling_is_named(taken: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "annotator", tmp_path / "home" / "annotator")
    for name in ("index", "service"):
        shutil.copytree(ROOT / name, tmp_path / "home" / name)
    (tmp_path / taken).mkdir()
    (tmp_path / taken / "__init__.py").touch()
    script = (
        f"import sys; sys.path[:0] = {[str(tmp_path), str(tmp_path / 'home')]!r}; import annotator"
    )
    done = run(script, cwd=tmp_path)
    assert done.returncode == 1
    assert f"needs its own package `{taken}`" in done.stderr
    assert str(tmp_path / taken) in done.stderr


@pytest.mark.parametrize("package", [annotator, index])
def test_public_names(package: object) -> None:
    assert set(package.__all__) == set(package._HOME)
    for name, home in package._HOME.items():
        assert getattr(package, name).__module__ == home
    # A module of the same name would take the place of the object once it is imported.
    assert not {module.name for module in pkgutil.iter_modules(package.__path__)} & set(
        package.__all__
    )
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = package.nothing
    assert importlib.import_module(package.__name__) is package
