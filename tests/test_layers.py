"""Imports go one way, and nothing heavy is loaded by merely importing a module."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import annotator
import index

ROOT = Path(__file__).parents[1]

# A module may import those of its own layer's package and of the layers before it.
LAYERS = (
    {"errors", "in_threads"},
    {"progress", "html", "concept_names", "tables", "images", "vote", "adapt"},
    {"score", "embed", "sample"},
    {"tune", "captions"},
    {"record"},
    {"collection", "inspect", "removal"},
    {"rows", "map"},
    {"build", "pipeline"},
    {"audit", "change", "explain", "figure", "search"},
    {"cli"},
    {"__main__"},
)
HEAVY = {"torch", "torchvision", "timm", "open_clip", "pandas", "faiss", "matplotlib", "pyarrow"}
HEAVY |= {"pydicom", "sklearn", "skimage", "tqdm", "umap", "numba"}
HEAVY |= {"ray", "fsspec", "s3fs", "gcsfs"}
# What the extra `service` installs; loaded by `annotator serve` alone.
SERVICE = {"fastapi", "starlette", "pydantic", "pydantic_settings", "uvicorn", "h11"}
SERVICE |= {"prometheus_client", "python_multipart"}
MAY_BE_HEAVY = {
    "annotator/encoders": {"torch"},
    "annotator/images/dicom_worker.py": {"pydicom"},  # a process of its own
}


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports(path: Path, *, top_only: bool = False) -> Iterator[str]:
    """Full names of the modules that a file imports, anywhere or when it is itself imported."""
    waiting: list[ast.AST] = [ast.parse(path.read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif top_only and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        elif top_only and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting.extend(node.orelse)
        else:
            waiting.extend(ast.iter_child_nodes(node))


def name_of(path: Path) -> str:
    """Such as "embed" for annotator/encoders/cache.py."""
    return path.relative_to(ROOT / "annotator").parts[0].removesuffix(".py")


def rank(name: str) -> int:
    return next(i for i, layer in enumerate(LAYERS) if name in layer)


def test_every_module_has_a_layer() -> None:
    names = {name_of(path) for path in modules("annotator")} - {"__init__"}
    assert names == set().union(*LAYERS)


@pytest.mark.parametrize("path", modules("annotator"), ids=lambda p: str(p.relative_to(ROOT)))
def test_layers_of_annotator(path: Path) -> None:
    name = name_of(path)
    if name == "__init__":
        return  # names its public API lazily, from everywhere
    for module in imports(path):
        parts = module.split(".")
        if parts[0] != "annotator" or len(parts) == 1 or parts[1] == "__version__":
            continue
        allowed = parts[1] == name or rank(parts[1]) < rank(name)
        assert allowed, f"{name} imports {module}, which is not below it"


@pytest.mark.parametrize("path", modules("index"), ids=lambda p: str(p.relative_to(ROOT)))
def test_index_imports_no_other_part(path: Path) -> None:
    assert not {module.split(".")[0] for module in imports(path)} & {"annotator", "service"}


@pytest.mark.parametrize("path", modules("annotator"), ids=lambda p: str(p.relative_to(ROOT)))
def test_annotator_imports_the_service_in_its_command_alone(path: Path) -> None:
    anywhere = {module.split(".")[0] for module in imports(path)}
    at_the_top = {module.split(".")[0] for module in imports(path, top_only=True)}
    assert "service" not in at_the_top
    assert "service" not in anywhere or path == ROOT / "annotator" / "cli" / "serve.py"
    assert not anywhere & SERVICE


@pytest.mark.parametrize("path", modules("service"), ids=lambda p: str(p.relative_to(ROOT)))
def test_what_the_service_imports(path: Path) -> None:
    anywhere = {module.split(".")[0] for module in imports(path)} - sys.stdlib_module_names
    assert anywhere <= {"annotator", "index", "service", "numpy"} | SERVICE
    assert not any(module.startswith("annotator.cli") for module in imports(path))


@pytest.mark.parametrize(
    "path",
    [*modules("annotator"), *modules("index"), *modules("service")],
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_nothing_heavy_is_imported_at_the_top(path: Path) -> None:
    found = {module.split(".")[0] for module in imports(path, top_only=True)} & HEAVY
    places = [str(place.relative_to(ROOT)) for place in (path, path.parent)]
    assert found <= set().union(*(MAY_BE_HEAVY.get(place, set()) for place in places))


@pytest.mark.parametrize("path", modules("annotator/cli"), ids=lambda p: p.name)
def test_commands_import_little_at_the_top(path: Path) -> None:
    allowed = ("annotator.cli", "annotator.errors", "annotator.__version__", "index.errors")
    for module in imports(path, top_only=True):
        if module.split(".")[0] in ("annotator", "index") and module not in ("annotator",):
            assert module.startswith(allowed), module


def run(script: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.strip()


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import annotator, index", {"numpy", "PIL", "service"} | SERVICE | HEAVY),
        ("import annotator.cli", {"numpy", "PIL", "service"} | SERVICE | HEAVY),
        ("import service.server", {"PIL"} | HEAVY),
        ("from annotator import evaluate, find_images, read_collection, Voting", HEAVY),
        (
            "import annotator.indexing.describe, annotator.indexing.metadata, index.folder.store",
            HEAVY,
        ),
        (
            "import annotator.tables.run, annotator.evaluation.collection_stats, annotator.evaluation.report",
            HEAVY,
        ),
    ],
)
def test_what_an_import_does_not_load(statement: str, absent: set[str]) -> None:
    loaded = run(f"import sys; {statement}; print(*sys.modules)").split()
    assert not set(loaded) & absent


def test_public_names_are_no_modules() -> None:
    # A module of the same name would take the place of the object once it is imported.
    for package in (annotator, index):
        submodules = {module.name for module in pkgutil.iter_modules(package.__path__)}
        assert not submodules & set(package.__all__)


@pytest.mark.slow
@pytest.mark.parametrize("package", ["annotator", "index"])
def test_the_public_names_in_both_orders_of_import(package: str) -> None:
    script = f"""
import importlib, pkgutil, {package}
def modules():
    for module in pkgutil.walk_packages({package}.__path__, "{package}."):
        if not module.name.endswith(("__main__", "_worker")):
            importlib.import_module(module.name)
def names():
    objects = [getattr({package}, name) for name in {package}.__all__]
    return [(o.__name__, o.__module__) for o in objects]
if %s:
    first = names()
    modules()
else:
    modules()
    first = names()
assert first == names()
assert dict(first) == {package}._HOME, first
print(*(name for name, _ in first))
"""
    expected = " ".join(importlib.import_module(package).__all__)
    assert run(script % True) == run(script % False) == expected


def test_unknown_names_are_attribute_errors() -> None:
    for package in (annotator, index):
        with pytest.raises(AttributeError, match="no attribute 'nothing'"):
            _ = package.nothing
        assert set(package.__all__) == set(package._HOME)
