"""The parameters from neighbours to concepts, in one place."""

from __future__ import annotations

from dataclasses import dataclass

from annotator.vote.decide import Decider, Decision, decide
from annotator.vote.posterior import Posterior, vote
from index import LabelTable, Neighbors


@dataclass(frozen=True)
class Voting:
    """How neighbours become concepts. The defaults were chosen by leave-one-group-out on the
    training side of a mixed set of radiological images (docs/encoder.md).

    Attributes:
        k: Neighbours that vote.
        beta: Sharpness of the kernel exp(beta * similarity).
        decider: "expected-f1", "threshold" or "top-r".
        threshold: For "threshold": the least share of the votes.
        top_r: For "top-r": how many concepts; None for the neighbours' mean number.
        min_score: Concepts with a smaller share of the votes are dropped.
    """

    k: int = 50
    beta: float = 32.0
    decider: Decider = "expected-f1"
    threshold: float = 0.35
    top_r: int | None = None
    min_score: float = 0.0

    def decide(self, neighbors: Neighbors, labels: LabelTable) -> tuple[Posterior, list[Decision]]:
        """Neighbours of q images to their posterior and q decisions."""
        posterior = vote(neighbors, labels, k=self.k, beta=self.beta)
        return posterior, decide(
            posterior,
            self.decider,
            threshold=self.threshold,
            top_r=self.top_r,
            min_score=self.min_score,
        )
