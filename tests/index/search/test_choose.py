"""Which kind of index is chosen, and the reason that is given."""

from __future__ import annotations

import re

import pytest

from index.search.choose import choose_kind, machine_memory

GIB = 2**30


@pytest.mark.parametrize(
    ("n", "dim", "target", "memory", "kind", "reason"),
    [
        (1, 1280, None, GIB, "flat", "1 rows are few enough to compare them all"),
        (5_000, 1280, None, GIB, "flat", "5,000 rows are few enough"),
        (5_000, 1280, 0.9, 1, "flat", "5,000 rows are few enough"),
        (5_001, 1280, None, GIB, "scan", "5,001 rows can be searched exactly"),
        (200_000, 1280, None, 1, "scan", "200,000 rows can be searched exactly"),
        (200_000, 64, None, GIB, "flat", "200,000 rows can be searched exactly"),
        (200_000, 65, None, GIB, "scan", "200,000 rows can be searched exactly"),
        (200_001, 512, None, GIB, "ivf", "too many to compare them all.*target recall 0.98"),
        (50_000, 512, 0.9, GIB, "ivf", r"their vectors \(0.1 GiB\) fit in 1.0 GiB.*recall 0.9$"),
        (1_000_000, 512, None, GIB, "compressed", r"\(1.9 GiB\) do not fit in 1.0 GiB.*0.98$"),
        (1_000_000, 512, 0.95, GIB, "compressed", "target recall 0.95$"),
        (1_000_000, 512, 1.0, 1, "scan", r"all true neighbours are wanted \(target recall 1\)"),
        (1_000_000, 16, 1.0, GIB, "flat", "all true neighbours are wanted"),
    ],
)
def test_the_kind_follows_from_rows_length_recall_and_memory(
    n: int, dim: int, target: float | None, memory: int, kind: str, reason: str
) -> None:
    chosen, why = choose_kind(n, dim, target_recall=target, memory=memory)
    assert chosen == kind
    assert re.search(reason, why), why


def test_vectors_that_just_fit_in_memory() -> None:
    n, dim = 300_000, 512
    assert choose_kind(n, dim, memory=4 * n * dim)[0] == "ivf"
    assert choose_kind(n, dim, memory=4 * n * dim - 1)[0] == "compressed"


def test_half_of_the_memory_of_the_machine_counts() -> None:
    memory = machine_memory()
    assert GIB // 4 < memory < 2**50
    fits = memory // 2 // (4 * 512)
    assert choose_kind(fits, 512, target_recall=0.9)[0] == "ivf"
    assert choose_kind(fits + 1, 512, target_recall=0.9)[0] == "compressed"
