"""Choosing a kind of vector index, building its files beside the vectors, and opening them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from index.errors import IndexProblem
from index.manifest import SEARCH_FILES, Manifest, load_array
from index.progress import track
from index.search.base import VectorIndex, import_faiss
from index.search.flat import FlatIndex
from index.search.gpu import gpu_index
from index.search.ivf import IvfIndex, IvfKind, build_ivf, tune
from index.search.pca_scan import ScanIndex
from index.search.scan_table import ScanTable, fit_axes, fit_table

Kind = Literal["flat", "scan", "ivf", "compressed"]
IndexType = Literal["auto", "flat", "scan", "ivf", "compressed"]
KINDS: tuple[Kind, ...] = get_args(Kind)
EXACT = ("flat", "scan")
DEFAULT_RECALL = 0.98

(AXES, TABLE), (ANN,) = SEARCH_FILES["scan"], SEARCH_FILES["ivf"]

_FEW = 5_000  # rows; comparing them all takes about a millisecond
_MOST_EXACT = 200_000  # rows; up to here an exact search takes a few hundredths of a second
_SHORT = 64  # numbers; shorter vectors cannot be bounded any cheaper than compared


def choose_kind(
    n: int, dim: int, *, target_recall: float | None = None, memory: int | None = None
) -> tuple[Kind, str]:
    """The kind of index for n vectors of `dim` numbers.

    Args:
        n: Rows.
        dim: Length of a vector.
        target_recall: Share of the true 50 nearest that is enough; None for all of them as long as
            that is quick, and 0.98 beyond; 1 for all of them.
        memory: Bytes that searching may take; None for half of this machine's.

    Returns:
        The kind, and the reason in words.
    """
    memory = machine_memory() // 2 if memory is None else memory
    vectors = 4 * n * dim
    if n <= _FEW:
        return "flat", f"{n:,} rows are few enough to compare them all"
    exact: Kind = "scan" if dim > _SHORT else "flat"
    if target_recall == 1:
        return exact, "all true neighbours are wanted (target recall 1)"
    if n <= _MOST_EXACT and target_recall is None:
        return exact, f"{n:,} rows can be searched exactly in a few hundredths of a second"
    recall = target_recall or DEFAULT_RECALL
    if vectors <= memory:
        return "ivf", (
            f"{n:,} rows are too many to compare them all, their vectors "
            f"({_gib(vectors)}) fit in {_gib(memory)} of memory, target recall {recall:g}"
        )
    return "compressed", (
        f"the vectors ({_gib(vectors)}) do not fit in {_gib(memory)} of memory, "
        f"target recall {recall:g}"
    )


def machine_memory() -> int:
    """Bytes of memory that this machine has."""
    return int(os.sysconf("SC_PAGE_SIZE")) * int(os.sysconf("SC_PHYS_PAGES"))


def build_search(
    folder: Path, kind: IndexType, target_recall: float | None
) -> tuple[Kind, dict[str, Any]]:
    """Build what searching the vectors in `folder` needs.

    Returns:
        The kind of index, and its entry "search" of the manifest.
    """
    vectors = np.load(folder / "vectors.npy", mmap_mode="r", allow_pickle=False)
    reason = "it was asked for"
    if kind == "auto":
        kind, reason = choose_kind(*vectors.shape, target_recall=target_recall)
    params = build_files(kind, vectors, folder, target_recall=target_recall or DEFAULT_RECALL)
    return kind, {**params, "reason": reason}


def build_files(
    kind: Kind,
    vectors: NDArray[np.float32],
    folder: Path,
    *,
    target_recall: float = DEFAULT_RECALL,
) -> dict[str, Any]:
    """Write the files `SEARCH_FILES[kind]` into `folder`.

    Exact kinds take seconds; approximate ones are trained, and tuned to the target recall. The same
    vectors give the same bytes on as many threads. Memory does not grow with vectors that are
    mapped from disk, beyond what is written.

    Args:
        kind: Of index.
        vectors: float32[n, dim] of unit norm, C-contiguous, n at least 1.
        folder: Exists.
        target_recall: For approximate kinds, the share of the 50 nearest that a search is to find.

    Returns:
        Parameters for `open_files`, as JSON types; for approximate kinds with the recall that was
        measured on rows of the index itself.

    Raises:
        IndexProblem: The target is not above 0 and at most 1, or the vectors are not finite.
    """
    if not 0 < target_recall <= 1:
        raise IndexProblem(f"The target recall must be above 0 and at most 1, not {target_recall}.")
    if kind == "flat":
        return {}
    if kind == "scan":
        return {"width": _write_table(vectors, folder)}
    ann = build_ivf(kind, vectors)
    import_faiss().write_index(ann, str(folder / ANN))
    return tune(kind, ann, vectors, target_recall)


def _write_table(vectors: NDArray[np.float32], folder: Path) -> int:
    """Write the table of a scan; its width."""
    axes = fit_axes(vectors)
    np.save(folder / AXES, axes, allow_pickle=False)
    shape = (len(vectors), axes.shape[1] + 1)
    table = np.lib.format.open_memmap(folder / TABLE, "w+", np.float32, shape)
    done = 0
    parts = fit_table(vectors, axes)
    for part in track(parts, total=len(vectors), label="Indexing", unit="vectors", size=len):
        table[done : done + len(part)] = part
        done += len(part)
    table.flush()
    return int(shape[1])


def open_search(
    folder: Path, manifest: Manifest, vectors: NDArray[np.float32], device: str
) -> VectorIndex:
    """The index over the base segment of a version; "cuda" searches it on the GPUs.

    Raises:
        IndexProblem: As `open_files` and `gpu_index`.
    """
    kind = manifest.index_type
    if device != "cuda":
        return open_files(kind, vectors, folder, manifest.search)
    if kind in get_args(IvfKind):
        return gpu_index(vectors, nprobe=_ivf_parameters(manifest.search)[0])
    return gpu_index(vectors)


def open_files(
    kind: str, vectors: NDArray[np.float32], folder: Path, params: Mapping[str, Any]
) -> VectorIndex:
    """The index over `vectors` from the files that `build_files` has written.

    Args:
        kind: Of index; "hnsw", which earlier versions built, compares all rows.
        vectors: The same.
        folder: Holds the files, which are trusted: check them before.
        params: As `build_files` returned.

    Raises:
        IndexProblem: Files and vectors do not fit together, or FAISS cannot read its file.
    """
    if kind == "scan":
        axes = np.load(folder / AXES, allow_pickle=False)
        table = load_array(folder / TABLE)
        return ScanIndex(vectors, ScanTable(axes, table))
    if kind not in get_args(IvfKind):
        return FlatIndex(vectors)
    nprobe, k_factor = _ivf_parameters(params)
    faiss = import_faiss()
    try:
        ann = faiss.read_index(str(folder / ANN))
    except RuntimeError as error:
        raise IndexProblem(
            f"FAISS {faiss.__version__} cannot read {ANN}: {str(error).splitlines()[-1]}",
            "It was written by another version: `annotator compact` with that version, or build "
            "the index again.",
        ) from error
    return IvfIndex(cast(IvfKind, kind), ann, vectors, nprobe=nprobe, k_factor=k_factor)


def _ivf_parameters(params: Mapping[str, Any]) -> tuple[int, int]:
    """`nprobe` and `k_factor` from a manifest, which calls them "effort" and "width"."""
    try:
        nprobe, k_factor = int(params["effort"]), int(params["width"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise IndexProblem(f"The search parameters are damaged: {error!r}.") from error
    if not 1 <= nprobe < 2**31 or not 1 <= k_factor < 2**31:
        raise IndexProblem(f"The search parameters are damaged: {nprobe=}, {k_factor=}.")
    return nprobe, k_factor


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
