"""What work costs, in seconds on the clock and on the CPUs, and who is charged for it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Cost:
    """Seconds on the clock, and CPU-seconds of all threads and of processes that have ended."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.seconds + other.seconds, self.cpu_seconds + other.cpu_seconds)

    def __sub__(self, other: Cost) -> Cost:
        return Cost(self.seconds - other.seconds, self.cpu_seconds - other.cpu_seconds)

    def __mul__(self, factor: float) -> Cost:
        return Cost(self.seconds * factor, self.cpu_seconds * factor)

    @classmethod
    def now(cls) -> Cost:
        """A point in time; the difference of two is a cost."""
        return cls(time.perf_counter(), sum(os.times()[:4]))


class Ledger:
    """Charges a row for work that an earlier row or run has done already.

    Vectors, decoded pixels and trained networks are kept and shared, but every row is charged for
    what it uses as if it had run alone.
    """

    def __init__(self) -> None:
        self._charged: set[str] = set()
        self._extra = Cost()

    def measure(self, work: Callable[[], T]) -> tuple[T, Cost]:
        """Do `work`; its result and its cost, with what was charged on the way."""
        self._charged, self._extra = set(), Cost()
        start = Cost.now()
        result = work()
        return result, Cost.now() - start + self._extra

    def charge(self, key: str, cost: Cost, spent: Cost | None = None) -> None:
        """Charge `cost`, once for each key; `spent` of it has been seen by the clock already."""
        if key not in self._charged:
            self._charged.add(key)
            self._extra += cost - (spent or Cost())
