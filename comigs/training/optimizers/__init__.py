"""Local optimisers, one file each, which defines `OPTIMIZER`; their state survives rounds."""

import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from comigs.config.experts import ExpertsConfig
from comigs.config.train import TrainConfig
from comigs.schema.byfile import find_in

HOUSE = ("directions", "stepping")  # files here that are none
Named = Iterable[tuple[str, nn.Parameter]]
Rates = Callable[[torch.optim.Optimizer], list[Tensor | float]]


@dataclass(frozen=True)
class LocalOptimizer:
    """How a client's tensors are stepped.

    Attributes:
        make: builds it over some tensors and their names; which is which may matter to it.
        state_bytes: what it keeps for a float32 tensor of a name and shape, for predicted memory.
        rates: how far it moves every entry per unit of one batch's gradient, in the parameters'
            order; None where that cannot be said, and `router.grad: first_order` has no inner step.
        accepts: given the experts of each kind of client, why it is not for them, or None.
    """

    make: Callable[[Named, TrainConfig], torch.optim.Optimizer]
    state_bytes: Callable[[str, Sequence[int]], int]
    rates: Rates | None = None
    accepts: Callable[[Sequence[ExpertsConfig]], str | None] = lambda experts: None


def floats(name: str, shape: Sequence[int]) -> int:
    """Bytes of one float32 number for each entry of a tensor."""
    return 4 * math.prod(shape)


def find_optimizer(name: str) -> LocalOptimizer:
    """Return `OPTIMIZER` of comigs/training/optimizers/<name>.py.

    Raises:
        BadInput: there is none of that name.
    """
    made: LocalOptimizer = find_in(
        sys.modules[__name__], "train.optimizer", name, "OPTIMIZER", HOUSE
    )
    return made


def make_optimizer(
    parameters: Mapping[str, nn.Parameter], config: TrainConfig, moments: Mapping[str, Tensor]
) -> torch.optim.Optimizer:
    """Build the optimiser over `parameters` and restore what `moments_of` returned earlier.

    Its tensors become the optimiser's own, and change with it.
    """
    optimizer = find_optimizer(config.optimizer).make(parameters.items(), config)
    for name, parameter in parameters.items():
        saved = {
            key.split("/", 1)[0]: value.to(parameter.device)
            for key, value in moments.items()
            if key.split("/", 1)[1] == name
        }
        if saved:
            optimizer.state[parameter] = saved
    return optimizer


def moments_of(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]
) -> dict[str, Tensor]:
    """The optimiser's state as `<moment>/<tensor name>`, e.g. exp_avg, exp_avg_sq and step."""
    return {
        f"{key}/{name}": value.detach().cpu()
        for name, parameter in parameters.items()
        for key, value in optimizer.state.get(parameter, {}).items()
        if value is not None
    }
