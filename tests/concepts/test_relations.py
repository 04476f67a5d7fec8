"""Parents from files of the UMLS, as the Reference Manual lays them out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from annotator.concepts.hierarchy import read_hierarchy
from annotator.errors import FormatError

NODULE, MASS, LUNG_DISEASE, DISEASE, ROOT = (f"C000000{i}" for i in range(1, 6))


def mrrel(first: str, relation: str, second: str, suppress: str = "N") -> str:
    """A row of MRREL.RRF: `relation` is that of the second concept to the first."""
    return f"{first}|A0000011|AUI|{relation}|{second}|A0000012|AUI||R1||MSH|MSH|||{suppress}||\n"


def mrhier(cui: str, aui: str, path: str) -> str:
    parent = path.rpartition(".")[2]
    return f"{cui}|{aui}|1|{parent}|MSH|isa|{path}|||\n"


def mrconso(cui: str, aui: str) -> str:
    return f"{cui}|ENG|P|L0000001|PF|S0000001|Y|{aui}||M1|D1|MSH|MH|D1|name|0|N||\n"


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write_rows(name: str, *rows: str) -> Path:
        path = tmp_path / name
        path.write_text("".join(rows))
        return path

    return write_rows


def test_mrrel_gives_parents_in_either_direction(write: Callable[..., Path]) -> None:
    path = write(
        "MRREL.RRF",
        mrrel(NODULE, "PAR", LUNG_DISEASE),
        mrrel(LUNG_DISEASE, "CHD", NODULE),  # the same
        mrrel(MASS, "CHD", NODULE),
        mrrel(LUNG_DISEASE, "RB", DISEASE),
        mrrel(ROOT, "RN", DISEASE),
        mrrel(NODULE, "RO", MASS),
        mrrel(MASS, "SIB", NODULE),
        mrrel(NODULE, "PAR", NODULE),
        mrrel(NODULE, "PAR", "C0000009", suppress="O"),
    )
    hierarchy = read_hierarchy(path)
    assert hierarchy.parents == {
        NODULE: (MASS, LUNG_DISEASE),
        LUNG_DISEASE: (DISEASE,),
        DISEASE: (ROOT,),
    }
    assert hierarchy.ancestors(NODULE) == {LUNG_DISEASE, DISEASE}
    assert hierarchy.roots == (MASS, ROOT)


def test_only_ancestors_of_the_concepts_in_question(write: Callable[..., Path]) -> None:
    rows = [mrrel(f"C{i:07d}", "PAR", f"C{i // 2:07d}") for i in range(2, 5000)]
    path = write("MRREL.RRF", *rows)
    hierarchy = read_hierarchy(path, only=["C0003000", "C0000001", "CHEST", "C9999999"])
    chain = [3000, 1500, 750, 375, 187, 93, 46, 23, 11, 5, 2]
    assert set(hierarchy.parents) == {f"C{i:07d}" for i in [*chain, 1]}
    assert hierarchy.ancestors("C0003000") == {f"C{i:07d}" for i in chain[1:]}
    assert "C0000001" in hierarchy and "C9999999" not in hierarchy
    assert read_hierarchy(path).ancestors("C0003000") == hierarchy.ancestors("C0003000")


def test_concepts_above_each_other_are_equals(write: Callable[..., Path]) -> None:
    path = write(
        "MRREL.RRF",
        mrrel(NODULE, "PAR", MASS),
        mrrel(MASS, "PAR", LUNG_DISEASE),
        mrrel(LUNG_DISEASE, "PAR", MASS),
        mrrel(LUNG_DISEASE, "PAR", DISEASE),
        mrrel(DISEASE, "PAR", ROOT),
    )
    hierarchy = read_hierarchy(path)
    assert hierarchy.ancestors(MASS) == hierarchy.ancestors(LUNG_DISEASE) == {DISEASE}
    assert hierarchy.ancestors(NODULE) == {MASS, DISEASE}
    assert hierarchy.notes[0].startswith("2 concepts are among their own ancestors")


def test_mrhier_gives_parents_by_paths_of_atoms(write: Callable[..., Path]) -> None:
    path = write(
        "MRHIER.RRF",
        mrhier(NODULE, "A0000001", "A0000005.A0000004.A0000003"),
        mrhier(NODULE, "A0000021", "A00000025.A0000022"),  # another source
        mrhier(MASS, "A0000022", "A00000025"),
        mrhier(LUNG_DISEASE, "A0000003", "A0000005.A0000004"),
        mrhier(DISEASE, "A0000004", "A0000005"),
    )
    hierarchy = read_hierarchy(path, only=[NODULE])
    assert hierarchy.ancestors(NODULE) == {MASS, LUNG_DISEASE, DISEASE}
    assert hierarchy.parents[NODULE] == (MASS, LUNG_DISEASE)
    assert hierarchy.roots == ("A00000025", "A0000005")  # tops of sources, by their atoms


def test_atoms_without_a_row_are_looked_up_in_mrconso(write: Callable[..., Path]) -> None:
    path = write(
        "MRHIER.RRF",
        mrhier(NODULE, "A0000001", "A0000005.A0000004.A0000003"),
        mrhier(MASS, "A0000002", "A0000005.A0000004.A0000003"),
    )
    assert read_hierarchy(path).ancestors(NODULE) == {"A0000003", "A0000004"}
    write(
        "MRCONSO.RRF",
        mrconso(LUNG_DISEASE, "A0000003"),
        mrconso(DISEASE, "A0000004"),
        mrconso(ROOT, "A0000005"),
        mrconso("C0000077", "A0000077"),
    )
    hierarchy = read_hierarchy(path)
    assert hierarchy.ancestors(NODULE) == hierarchy.ancestors(MASS) == {LUNG_DISEASE, DISEASE}
    assert hierarchy.roots == (ROOT,)


def test_a_damaged_row_is_named(write: Callable[..., Path]) -> None:
    path = write("MRREL.RRF", mrrel(NODULE, "PAR", MASS), mrrel(NODULE, "PAR", "X1"))
    with pytest.raises(FormatError, match="'X1' is no CUI or AUI"):
        read_hierarchy(path)
