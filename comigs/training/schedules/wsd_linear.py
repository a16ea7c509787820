"""The peak, and over the last fifth a cooldown to 0 along a line."""

from comigs.training.schedules.cooldown import cooled


def wsd_linear(progress: float) -> float:
    return cooled(progress, shape)


def shape(progress: float) -> float:
    return 1 - progress


SCHEDULE = wsd_linear
