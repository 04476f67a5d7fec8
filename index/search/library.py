"""FAISS, loaded when it is needed, with errors that say what to install."""

from __future__ import annotations

import importlib.metadata
from functools import cache
from types import ModuleType

from index.distribution import pip_install
from index.errors import IndexProblem

_WHEELS = ("faiss-cpu", "faiss-gpu", "faiss-gpu-cuvs")


@cache
def import_faiss() -> ModuleType:
    """FAISS, or an error that says what to install.

    faiss-cpu and faiss-gpu both install the package `faiss`: whichever came last has overwritten
    parts of the other, which ends in missing symbols or in a silent fall-back to the CPU. Looked
    up once: that takes longer than many a search.

    Raises:
        IndexProblem: Neither or both are installed, or the installed one does not load.
    """
    present = [name for name in _WHEELS if _is_installed(name)]
    if len(present) > 1:
        raise IndexProblem(
            f"{' and '.join(present)} are both installed, and each overwrites the other's files.",
            f"pip uninstall {' '.join(present)}, then install one: "
            f"{pip_install('cpu')} or {pip_install('gpu')}.",
        )
    try:
        import faiss
    except (
        ImportError,
        AttributeError,
        OSError,
        RuntimeError,
    ) as error:  # half-installed
        reason = f" does not load: {error}" if present else " is not installed."
        hint = (
            "faiss-gpu needs the CUDA 12 runtime, cuBLAS and cuRAND; without a GPU: "
            f"pip uninstall faiss-gpu, then {pip_install('cpu')}."
            if present and present != ["faiss-cpu"]
            else f"{pip_install('cpu')}, or {pip_install('gpu')}."
        )
        raise IndexProblem(f"FAISS{reason}", hint) from error
    module: ModuleType = faiss
    return module


def _is_installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
