"""Cycles, against the transitive closure."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from annotator.concepts.cycles import cycles


@given(st.dictionaries(st.sampled_from("ABCDEF"), st.sets(st.sampled_from("ABCDEF"), max_size=3)))
def test_cycles_are_the_concepts_above_themselves(parents: dict[str, set[str]]) -> None:
    above = {c: set(parents.get(c, ())) for c in "ABCDEF"}
    for middle in "ABCDEF":  # Warshall
        for c in "ABCDEF":
            if middle in above[c]:
                above[c] |= above[middle]
    expected = {
        tuple(sorted(d for d in "ABCDEF" if d == c or (d in above[c] and c in above[d])))
        for c in "ABCDEF"
        if c in above[c]
    }
    assert {tuple(group) for group in cycles(parents)} == expected
