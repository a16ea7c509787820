"""Rotational AdamW (arXiv 2305.17212) on A of every LoRA pair."""

import math
from collections.abc import Sequence

from comigs.config.train import TrainConfig
from comigs.training.optimizers import LocalOptimizer, Named, floats
from comigs.training.optimizers.directions import adamw
from comigs.training.optimizers.stepping import Along, rotational, turning_bytes


def angle(lr: float, decay: float, betas: Sequence[float]) -> float:
    return math.sqrt(2 * lr * decay * (1 - betas[0]) / (1 + betas[0]))


def make(named: Named, config: TrainConfig) -> Along:
    return rotational(named, config, adamw, angle)


def state_bytes(name: str, shape: Sequence[int]) -> int:
    """Two moments and their counter, and what turns."""
    return 2 * floats(name, shape) + 4 + turning_bytes(name, shape)


OPTIMIZER = LocalOptimizer(make, state_bytes)
