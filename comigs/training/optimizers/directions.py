"""What each optimiser would add to a tensor, without learning rate and decay."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

State = dict[str, Any]
Direction = Callable[[State, Tensor, Sequence[float]], Tensor]
"""From a tensor's state, which is moved on, its gradient and `train.betas` to what is subtracted
of it per unit of learning rate."""

EPSILON = 1e-8  # AdamW's


def adamw(state: State, gradient: Tensor, betas: Sequence[float]) -> Tensor:
    """Two bias-corrected moments (arXiv 1711.05101)."""
    if not state:
        state |= {"step": torch.zeros(()), "exp_avg": torch.zeros_like(gradient)}
        state["exp_avg_sq"] = torch.zeros_like(gradient)
    state["step"] += 1
    state["exp_avg"].lerp_(gradient, 1 - betas[0])
    state["exp_avg_sq"].mul_(betas[1]).addcmul_(gradient, gradient, value=1 - betas[1])
    first, second = (1 - beta ** state["step"].item() for beta in betas)
    size = (state["exp_avg_sq"] / second).sqrt_().add_(EPSILON)
    return (state["exp_avg"] / first).div_(size)


def sgd(state: State, gradient: Tensor, betas: Sequence[float]) -> Tensor:
    """Momentum betas[0], as torch's: the first is the gradient."""
    momentum = state.setdefault("momentum_buffer", torch.zeros_like(gradient))
    return momentum.mul_(betas[0]).add_(gradient)


def lion(state: State, gradient: Tensor, betas: Sequence[float]) -> Tensor:
    """The sign of a moving mean that looks ahead by betas[0] (arXiv 2302.06675)."""
    mean = state.setdefault("exp_avg", torch.zeros_like(gradient))
    ahead = mean.lerp(gradient, 1 - betas[0])
    mean.lerp_(gradient, 1 - betas[1])
    return ahead.sign_()


def liona(state: State, gradient: Tensor, betas: Sequence[float]) -> Tensor:
    """Signs of Nesterov's momentum, as long as momentum is (arXiv 2410.23922): warmup-free.

    Entry by entry the l2 norm of an update is sqrt((1 - b) / (1 + b)), b = betas[0].
    """
    mean = state.setdefault("exp_avg", torch.zeros_like(gradient))
    mean.lerp_(gradient, 1 - betas[0])
    size = math.sqrt((1 - betas[0]) / (1 + betas[0]))
    return mean.lerp(gradient, 1 - betas[0]).sign_().mul_(size)
