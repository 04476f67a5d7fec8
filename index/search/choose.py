"""Which kind of index suits a collection, with the reason in words."""

from __future__ import annotations

import os

from index.search.build import DEFAULT_RECALL, Kind

_FEW = 5_000  # rows; comparing them all takes about a millisecond
_EXACT = 200_000  # rows; up to here an exact search takes a few hundredths of a second
_SHORT = 64  # numbers; shorter vectors cannot be bounded any cheaper than compared


def choose_kind(
    n: int, dim: int, *, target_recall: float | None = None, memory: int | None = None
) -> tuple[Kind, str]:
    """The kind of index for n vectors of `dim` numbers.

    Args:
        n: Rows.
        dim: Numbers of a vector.
        target_recall: Share of the true 50 nearest that is enough; None for all of them as long as
            that is quick, and 0.98 beyond; 1 for all of them.
        memory: Bytes that searching may take; None for half of this machine's.

    Returns:
        The kind, and why.
    """
    memory = machine_memory() // 2 if memory is None else memory
    vectors = 4 * n * dim
    if n <= _FEW:
        return "flat", f"{n:,} rows are few enough to compare them all"
    exact: Kind = "scan" if dim > _SHORT else "flat"
    if target_recall == 1:
        return exact, "all true neighbours are wanted (target recall 1)"
    if n <= _EXACT and target_recall is None:
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


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
