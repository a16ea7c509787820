"""What a run tells that goes on to more rounds than it had."""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Extended:
    """A run goes on after `round` to `rounds` rounds.

    Attributes:
        before: rounds that it had.
        rates: learning rates of the last step so far and of the next, where its schedule is no
            longer that of `before` rounds; None: all is as if it had had `rounds` from the start.
    """

    kind: ClassVar[str] = "extended"
    round: int
    before: int
    rounds: int
    rates: tuple[float, float] | None

    @property
    def told(self) -> str:
        """What this means, in a sentence."""
        had = "" if self.round == self.before else f" (it had {self.before})"
        what = f"extends round {self.round} to {self.rounds}{had}"
        if self.rates is None:
            return f"{what}: the same as {self.rounds} rounds from the start"
        last, following = (f"{rate:.3g}" for rate in self.rates)
        return (
            f"{what}: from round {self.round + 1} on the learning rate is that of {self.rounds} "
            f"rounds, {following} after {last}; {self.rounds} rounds from the start would differ"
        )
