"""Local optimisers, and their moments by tensor name so that they survive rounds."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from comigs.config.train import TrainConfig


def make_optimizer(
    parameters: Mapping[str, nn.Parameter], config: TrainConfig, moments: Mapping[str, Tensor]
) -> torch.optim.Optimizer:
    """Build the optimiser over `parameters` and restore what `moments_of` returned earlier."""
    optimizer = torch.optim.AdamW(
        parameters.values(),
        lr=config.lr,
        betas=(config.betas[0], config.betas[1]),
        weight_decay=config.weight_decay,
        fused=True,
    )
    for name, parameter in parameters.items():
        saved = {
            key.split("/", 1)[0]: value.clone().to(parameter.device)
            for key, value in moments.items()
            if key.split("/", 1)[1] == name
        }
        if saved:
            optimizer.state[parameter] = saved
    return optimizer


def moments_of(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]
) -> dict[str, Tensor]:
    """The optimiser's state as `<moment>/<tensor name>`: exp_avg, exp_avg_sq and step."""
    return {
        f"{key}/{name}": value.detach().cpu()
        for name, parameter in parameters.items()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def adam_rates(optimizer: torch.optim.Optimizer) -> list[Tensor | float]:
    """How far AdamW moves every entry per unit of one batch's gradient, in the parameters' order.

    It is lr (1 - beta_1) / (sqrt(v) + rms): of a gradient, that share enters the moving mean which
    AdamW steps along. The root mean square of sqrt(v) over the tensor stands in place of AdamW's
    tiny epsilon: an entry whose gradient was 0 so far must not move without bound.
    """
    rates: list[Tensor | float] = []
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = optimizer.state.get(parameter) or {}
            v = state.get("exp_avg_sq")
            if v is None or not v.any():
                rates.append(0.0)
                continue
            correction = math.sqrt(1 - group["betas"][1] ** state["step"].item())
            size = group["lr"] * (1 - group["betas"][0]) * correction
            rates.append(size / (v.sqrt() + v.mean().sqrt()))
    return rates
