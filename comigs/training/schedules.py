"""Learning-rate schedules as a function of training progress. A new one is one entry."""

import math
from collections.abc import Callable

FLOOR = 0.1  # cosine and linear end at a tenth of the peak

SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda p: 1.0,
    "linear": lambda p: 1 - (1 - FLOOR) * p,
    "cosine": lambda p: FLOOR + (1 - FLOOR) * (1 + math.cos(math.pi * p)) / 2,
}


def learning_rate(schedule: str, peak: float, step: int, total: int) -> float:
    """Learning rate of local step `step` (0-based) of `total` over all rounds."""
    return peak * SCHEDULES[schedule](min(step / max(total - 1, 1), 1.0))
