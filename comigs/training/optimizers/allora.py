"""ALLoRA (arXiv 2410.09692): AdamW's update of each row of A and B, divided by the row's length.

B starts at 0 and leaves it fast; rows that are long move slowly. The paper has neither dropout nor
a scale of the LoRA, so that both are refused.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from comigs.config.experts import ExpertsConfig
from comigs.config.train import TrainConfig
from comigs.mixture.ranks import lora_scale
from comigs.training.optimizers import LocalOptimizer, Named
from comigs.training.optimizers.adamw import state_bytes
from comigs.training.optimizers.directions import adamw
from comigs.training.optimizers.stepping import Along

MOST = 10.0  # what an update is multiplied by at a row that is 0


class ByRow(Along):
    """`Along` AdamW's direction, which is divided for LoRA's rows.

    The division is by sqrt(|w|^2 + 1 / MOST^2) for a row w. It is of the update, since AdamW would
    take it out of a gradient again.
    """

    def __init__(self, named: Named, config: TrainConfig) -> None:
        super().__init__(named, config, adamw)
        self.divided = {
            p
            for group in self.param_groups
            for name, p in zip(group["param_names"], group["params"], strict=True)
            if ".lora_" in name
        }

    def update_of(self, p: nn.Parameter, gradient: Tensor) -> Tensor:
        update = super().update_of(p, gradient)
        if p not in self.divided:
            return update
        length = p.square().sum(-1, keepdim=True).add_(MOST**-2).sqrt_()
        return update.div_(length)


def make(named: Named, config: TrainConfig) -> torch.optim.Optimizer:
    return ByRow(named, config)


def accepts(experts: Sequence[ExpertsConfig]) -> str | None:
    """Refuse dropout, and a factor of the LoRA's output other than 1."""
    first = experts[0]
    if first.dropout:
        return f"experts.dropout is {first.dropout}; it must be 0"
    if len({e.rank for e in experts}) > 1:
        return "experts.rank must be one for all clients, since no experts.alpha is for several"
    assert isinstance(first.rank, int)
    scale = lora_scale(first, first.rank)
    if abs(scale - 1) > 1e-6:
        return (
            f"experts.alpha is {first.alpha:g}, a scale of {scale:.3g}; it must be 1: set "
            f"experts.scaling to standard and experts.alpha to {first.rank}"
        )
    return None


OPTIMIZER = LocalOptimizer(make, state_bytes, accepts=accepts)
