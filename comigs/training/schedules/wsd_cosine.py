"""The peak, and over the last fifth a cooldown to 0 along half a cosine."""

import math

from comigs.training.schedules.cooldown import cooled


def wsd_cosine(progress: float) -> float:
    return cooled(progress, shape)


def shape(progress: float) -> float:
    return (1 + math.cos(math.pi * progress)) / 2


SCHEDULE = wsd_cosine
