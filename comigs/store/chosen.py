"""What a run with `stop` tells at its end: which round's models are tested, and why."""

from dataclasses import dataclass
from typing import ClassVar

MEASURES = {"perplexity": "mean validation perplexity", "worst": "highest validation perplexity"}


@dataclass(frozen=True)
class RoundChosen:
    """The rounds are over; the models of round `tested` are tested.

    Attributes:
        trained: rounds that were trained, of the `rounds` of the configuration.
        metric, patience: of `stop`.
        waited: evaluations since the best one.
        best: the best value of the metric; None if there was no evaluation.
    """

    kind: ClassVar[str] = "chosen"
    tested: int
    trained: int
    rounds: int
    metric: str
    patience: int
    waited: int
    best: float | None

    @property
    def stopped(self) -> bool:
        """Whether the run ended because nothing got better."""
        return self.waited >= self.patience

    @property
    def told(self) -> str:
        """The choice and its reason, in a sentence."""
        tested = f"the models of round {self.tested} are tested"
        measure = MEASURES.get(self.metric, self.metric)
        if self.best is None:
            return f"{tested}: there was no evaluation"
        if self.stopped:
            times = "evaluation" if self.waited == 1 else f"{self.waited} evaluations"
            return (
                f"stopped after round {self.trained} of {self.rounds}: {measure} {self.best:,.2f} "
                f"of round {self.tested} was not bettered in {times}; {tested}"
            )
        if self.waited:
            return f"{tested}: their {measure} {self.best:,.2f} was the best"
        return f"{tested}: the newest evaluation was the best"
