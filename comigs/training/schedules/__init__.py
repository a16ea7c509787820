"""Learning-rate schedules, one file each, which defines `SCHEDULE`: progress in [0, 1] to a factor.

Cosine and linear end at a tenth of the peak, REX and the cooldowns at 0.
"""

import sys
from collections.abc import Callable

from comigs.config.settings import RunConfig
from comigs.schema.byfile import find_in

FLOOR = 0.1
HOUSE = ("cooldown",)  # files here that are none

Schedule = Callable[[float], float]


def find_schedule(name: str) -> Schedule:
    """Return `SCHEDULE` of comigs/training/schedules/<name>.py.

    Raises:
        BadInput: there is none of that name.
    """
    schedule: Schedule = find_in(sys.modules[__name__], "train.schedule", name, "SCHEDULE", HOUSE)
    return schedule


def rise(done: int, steps: int, share: float) -> float:
    """Factor of a step (0-based) of `steps` while the rate rises over a share of them."""
    return min((done + 1) / (share * steps), 1.0) if share else 1.0


def learning_rate(
    schedule: Schedule, peak: float, step: int, total: int, warmup: float = 0.0
) -> float:
    """Learning rate of local step `step` (0-based) of `total` over all rounds.

    Args:
        warmup: share of all steps over which the rate rises to the schedule's, along a line.
    """
    return rise(step, total, warmup) * peak * schedule(min(step / max(total - 1, 1), 1.0))


def rates_of(config: RunConfig, steps: int) -> Callable[[int], float]:
    """The learning rate at each local step of a run, from 0; a round has `steps` of them."""
    schedule, train = find_schedule(config.train.schedule), config.train

    def rate(at: int) -> float:
        total = config.scheduled(at // steps + 1) * steps
        rate = learning_rate(schedule, train.lr, at, total, train.warmup)
        return rise(at % steps, steps, train.rewarm) * rate

    return rate
