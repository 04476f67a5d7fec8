"""A sample of rows."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from index.sampling import sample_rows


@given(st.integers(0, 50), st.integers(1, 50))
def test_spread(n: int, most: int) -> None:
    rows = sample_rows(n, most)
    assert len(rows) == min(n, most) and (np.diff(rows) > 0).all()
    assert not len(rows) or (rows[0] == 0 and (rows[-1] == n - 1 or most == 1))
