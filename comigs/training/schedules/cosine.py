"""From the peak to a tenth of it, along half a cosine."""

import math

from comigs.training.schedules import FLOOR


def cosine(progress: float) -> float:
    return FLOOR + (1 - FLOOR) * (1 + math.cos(math.pi * progress)) / 2


SCHEDULE = cosine
