"""When a run ends early, and which round is its best: from what clients tell, and nothing else.

In round t clients evaluate the models of round t - 1, as they have received them. Where some train
in a round, each client counts with its newest value. Means of different clients are not compared:
when a client is heard for the first time, the best begins anew.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from comigs.config.train import StopConfig


@dataclass(frozen=True)
class Watched:
    """What is known of the evaluations so far.

    Attributes:
        newest: by client, the newest validation perplexity that it told.
        best: the round whose models are the best so far; None: none is evaluated.
        value: the metric of that round.
        waited: evaluations since.
        states: by client, the round whose saved state goes with `best`.
    """

    newest: Mapping[int, float] = field(default_factory=dict)
    best: int | None = None
    value: float | None = None
    waited: int = 0
    states: Mapping[int, int] = field(default_factory=dict)

    def tested(self, last: int) -> int:
        """The round whose models are tested after round `last`.

        No evaluation has seen the models of the last round; they are taken where the newest
        evaluation was the best.
        """
        return self.best if self.best and self.waited else last


def over(stop: StopConfig, watched: Watched) -> bool:
    """Whether no more rounds are trained."""
    return stop.patience is not None and watched.waited >= stop.patience


def watch(
    stop: StopConfig,
    watched: Watched,
    number: int,
    told: Mapping[int, float],
    states: Mapping[int, int],
) -> Watched:
    """`watched` after an evaluation of the models of round `number`.

    Args:
        number: 0 is the start, which cannot be the best.
        told: by client, validation perplexities; without any there is no evaluation.
        states: by client, the round whose saved state goes with round `number`.
    """
    if stop.patience is None or number == 0 or not told:
        return watched
    newest = dict(sorted({**watched.newest, **told}.items()))
    value = measure(stop, newest)
    if set(told) <= set(watched.newest) and not _better(value, watched.value):
        return Watched(newest, watched.best, watched.value, watched.waited + 1, watched.states)
    return Watched(newest, number, value, 0, dict(states))


def _better(value: float, best: float | None) -> bool:
    return best is None or value < best or (math.isnan(best) and not math.isnan(value))


def measure(stop: StopConfig, newest: Mapping[int, float]) -> float:
    """The metric of these clients' perplexities."""
    values = [newest[client] for client in sorted(newest)]
    return max(values) if stop.metric == "worst" else sum(values) / len(values)
