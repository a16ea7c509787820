"""Muon: momentum made orthogonal, matrix by matrix, and as long as AdamW's updates."""

import torch

from comigs.config.train import TrainConfig
from comigs.training.optimizers import LocalOptimizer, Named, floats


def make(named: Named, config: TrainConfig) -> torch.optim.Optimizer:
    return torch.optim.Muon(
        named,
        lr=config.lr,
        weight_decay=config.weight_decay,
        momentum=config.betas[0],
        adjust_lr_fn="match_rms_adamw",
    )


OPTIMIZER = LocalOptimizer(make, floats)
