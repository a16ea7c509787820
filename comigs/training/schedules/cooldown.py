"""Warmup-stable-decay (Haegele et al., arXiv 2405.18392): the peak, and at the end a cooldown to 0.

A run can be cooled down from any round of a constant one. The warmup is `train.warmup`, for every
schedule.
"""

from collections.abc import Callable

LAST = 0.2  # of the steps, in which it cools down


def cooled(progress: float, shape: Callable[[float], float]) -> float:
    """The factor at `progress` through the run; `shape` takes progress through the cooldown."""
    return 1.0 if progress <= 1 - LAST else shape((progress - (1 - LAST)) / LAST)
