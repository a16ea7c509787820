"""Rotational Lion (arXiv 2305.17212; LionAR of arXiv 2410.23922) on A of every LoRA pair."""

import math
from collections.abc import Sequence

from comigs.config.train import TrainConfig
from comigs.training.optimizers import LocalOptimizer, Named, floats
from comigs.training.optimizers.directions import lion
from comigs.training.optimizers.stepping import Along, rotational, turning_bytes


def angle(lr: float, decay: float, betas: Sequence[float]) -> float:
    first, second = betas
    spread = (1 - first) ** 2 + first**2 * (1 - second) / (1 + second)
    return math.sqrt(math.pi / 2) * math.sqrt(2 * lr * decay) * math.sqrt(spread)


def make(named: Named, config: TrainConfig) -> Along:
    return rotational(named, config, lion, angle)


def state_bytes(name: str, shape: Sequence[int]) -> int:
    return floats(name, shape) + turning_bytes(name, shape)


OPTIMIZER = LocalOptimizer(make, state_bytes)
