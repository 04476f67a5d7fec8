"""The voting parameters: none is out of range, and JSON keeps them."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest

from annotator.knn.voting import BANDS, Voting, frequency_bands


def test_parameters_survive_json() -> None:
    voting = Voting(
        k=7, kernel="rank", prior=0.3, typical=0.7, decider="top-r", top_r=3,
        macro_thresholds=(0.1, 0.2, 0.3, 0.5),
    )  # fmt: skip
    assert Voting(**json.loads(json.dumps(asdict(voting)))) == voting


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("k", 0),
        ("k", 2.5),
        ("k", True),
        ("beta", -1.0),
        ("beta", float("nan")),
        ("kernel", "gauss"),
        ("prior", -0.1),
        ("typical", 1.1),
        ("decider", "best"),
        ("threshold", 1.5),
        ("threshold", None),
        ("top_r", -1),
        ("macro_thresholds", (0.1, 0.2, 0.3)),
        ("macro_thresholds", (0.1, 0.2, 0.3, 0.6)),
        ("macro_thresholds", 0.1),
        ("min_score", float("nan")),
    ],
)
def test_values_out_of_range_are_refused(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"^{name} cannot be"):
        Voting(**{name: value})  # type: ignore[arg-type]


def test_bands_are_those_that_are_named() -> None:
    bands = frequency_bands(np.array([1, 3, 4, 19, 20, 99, 100, 10**6]))
    assert [BANDS[band] for band in bands] == [
        "1-3", "1-3", "4-19", "4-19", "20-99", "20-99", "100 or more", "100 or more"
    ]  # fmt: skip
