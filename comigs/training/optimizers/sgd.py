"""Stochastic gradient descent with momentum: half of AdamW's memory, and a larger learning rate."""

import torch
from torch import Tensor

from comigs.config.train import TrainConfig
from comigs.training.optimizers import LocalOptimizer, Named, floats


def make(named: Named, config: TrainConfig) -> torch.optim.Optimizer:
    return torch.optim.SGD(
        named, lr=config.lr, momentum=config.betas[0], weight_decay=config.weight_decay
    )


def rates(optimizer: torch.optim.Optimizer) -> list[Tensor | float]:
    """The learning rate, for every tensor."""
    return [group["lr"] for group in optimizer.param_groups for _ in group["params"]]


OPTIMIZER = LocalOptimizer(make, floats, rates)
