"""How often each batch was begun; apart from the workers, since its process needs no torch."""

from __future__ import annotations

from collections import Counter


class Attempts:
    """An actor that outlives the workers, and counts how often a batch was begun.

    Ray gives a lost worker's work to another one as often as it takes; images that end every worker
    would keep it busy for ever.
    """

    def __init__(self) -> None:
        self._begun: Counter[int] = Counter()

    def begin(self, place: int) -> int:
        """How often the batch at this place was begun, this time counted."""
        self._begun[place] += 1
        return self._begun[place]

    def done(self, place: int) -> None:
        """The batch is of no more interest."""
        del self._begun[place]
