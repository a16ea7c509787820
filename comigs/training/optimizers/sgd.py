"""Stochastic gradient descent with momentum: half of AdamW's memory, and a larger learning rate."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from comigs.config.train import TrainConfig
from comigs.training.optimizers import LocalOptimizer


def make(parameters: Iterable[nn.Parameter], config: TrainConfig) -> torch.optim.Optimizer:
    return torch.optim.SGD(
        parameters, lr=config.lr, momentum=config.betas[0], weight_decay=config.weight_decay
    )


def state_bytes(elements: int) -> int:
    """The momentum."""
    return 4 * elements


def rates(optimizer: torch.optim.Optimizer) -> list[Tensor | float]:
    """The learning rate, for every tensor."""
    return [group["lr"] for group in optimizer.param_groups for _ in group["params"]]


OPTIMIZER = LocalOptimizer(make, state_bytes, rates)
