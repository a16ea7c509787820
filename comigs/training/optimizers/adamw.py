"""AdamW (arXiv 1711.05101)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from comigs.config.train import TrainConfig
from comigs.training.optimizers import LocalOptimizer, Named, floats


def make(named: Named, config: TrainConfig) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        named,
        lr=config.lr,
        betas=(config.betas[0], config.betas[1]),
        weight_decay=config.weight_decay,
        fused=True,
    )


def state_bytes(name: str, shape: Sequence[int]) -> int:
    """Two moments, and a step counter."""
    return 2 * floats(name, shape) + 4


def rates(optimizer: torch.optim.Optimizer) -> list[Tensor | float]:
    """How far AdamW moves every entry per unit of one batch's gradient, in the parameters' order.

    It is lr (1 - beta_1) / (sqrt(v) + rms): of a gradient, that share enters the moving mean which
    AdamW steps along. The root mean square of sqrt(v) over the tensor stands in place of AdamW's
    tiny epsilon: an entry whose gradient was 0 so far must not move without bound.
    """
    found: list[Tensor | float] = []
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = optimizer.state.get(parameter) or {}
            v = state.get("exp_avg_sq")
            if v is None or not v.any():
                found.append(0.0)
                continue
            correction = math.sqrt(1 - group["betas"][1] ** state["step"].item())
            size = group["lr"] * (1 - group["betas"][0]) * correction
            found.append(size / (v.sqrt() + v.mean().sqrt()))
    return found


OPTIMIZER = LocalOptimizer(make, state_bytes, rates)
