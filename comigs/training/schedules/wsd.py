"""The peak, and over the last fifth a cooldown to 0 along 1 - sqrt."""

import math

from comigs.training.schedules.cooldown import cooled


def wsd(progress: float) -> float:
    return cooled(progress, shape)


def shape(progress: float) -> float:
    return 1 - math.sqrt(progress)


SCHEDULE = wsd
