"""Formulas that are printed as they are calculated: one text for both."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping

_NAME = re.compile(r"\b[a-z_][a-z_0-9]*\b")
_FUNCTIONS: Mapping[str, Callable[..., float]] = {"ceil": math.ceil, "min": min, "max": max}


def calculate(formula: str, values: Mapping[str, float | None]) -> float | None:
    """The result; None where one of its values is not known.

    Args:
        formula: In Python, of the names in `values`, numbers, ceil, min and max.
        values: By name.
    """
    if any(values[name] is None for name in names(formula)):
        return None
    return float(eval(formula, {"__builtins__": {}}, {**_FUNCTIONS, **values}))


def names(formula: str) -> list[str]:
    """Names of the values in a formula, in their order, each once."""
    found = dict.fromkeys(name for name in _NAME.findall(formula) if name not in _FUNCTIONS)
    return list(found)


def render(formula: str, shown: Mapping[str, str]) -> str:
    """The formula with `shown` in place of its names."""

    def one(match: re.Match[str]) -> str:
        name = match[0]
        return name if name in _FUNCTIONS else shown[name]

    text = re.sub(r"\b\d{4,}\b", lambda match: f"{int(match[0]):,}", formula)
    text = _NAME.sub(one, text).replace("**", " ^ ").replace("*", "×")
    return re.sub(" +", " ", text)
