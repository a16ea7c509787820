"""Learning-rate schedules, one file each, which defines `SCHEDULE`: progress in [0, 1] to a factor.

Cosine and linear end at a tenth of the peak.
"""

import sys
from collections.abc import Callable

from comigs.schema.byfile import find_in

FLOOR = 0.1

Schedule = Callable[[float], float]


def find_schedule(name: str) -> Schedule:
    """Return `SCHEDULE` of comigs/training/schedules/<name>.py.

    Raises:
        BadInput: there is none of that name.
    """
    schedule: Schedule = find_in(sys.modules[__name__], "train.schedule", name, "SCHEDULE")
    return schedule


def learning_rate(schedule: Schedule, peak: float, step: int, total: int) -> float:
    """Learning rate of local step `step` (0-based) of `total` over all rounds."""
    return peak * schedule(min(step / max(total - 1, 1), 1.0))
