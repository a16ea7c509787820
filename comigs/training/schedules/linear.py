"""From the peak to a tenth of it, along a line."""

from comigs.training.schedules import FLOOR


def linear(progress: float) -> float:
    return 1 - (1 - FLOOR) * progress


SCHEDULE = linear
