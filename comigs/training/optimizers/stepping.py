"""Steps along a direction: plain ones, and turns of LoRA's A on the spheres of its rows."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from comigs.config.train import TrainConfig
from comigs.errors import BadInput
from comigs.training.optimizers import Named
from comigs.training.optimizers.directions import Direction

Angle = Callable[[float, float, Sequence[float]], float]
"""From learning rate, decay and `train.betas` to the angle of a step in equilibrium."""

FADE = 0.9  # of the moving mean of an update's squared length
TINY = 1e-30


class Along(torch.optim.Optimizer):
    """w <- (1 - lr decay) w - lr u, with u of `direction`.

    With `angle`, A of every LoRA pair is turned instead (Kosson, Messmer and Jaggi, arXiv
    2305.17212): row by row along the part of u that is at right angles to the row, by the angle
    that weight decay would let it come to in the end, and the row's length stays. That length is
    taken at the first step of an optimiser, which is made once a round: the parameters then hold
    what it trains, which before may be another model of the client (`comigs.training.twin`). B
    starts at 0 and has no direction to turn from, and routers are no LoRA: both step plainly.
    """

    def __init__(
        self, named: Named, config: TrainConfig, direction: Direction, angle: Angle | None = None
    ) -> None:
        super().__init__(named, {"lr": config.lr})
        self.direction, self.angle, self.config = direction, angle, config
        self.lengths: dict[nn.Parameter, Tensor] = {}
        self.turning = {
            p
            for group in self.param_groups
            for name, p in zip(group["param_names"], group["params"], strict=True)
            if angle and turns(name)
        }

    @torch.no_grad()
    def step(self, closure: object = None) -> None:  # type: ignore[override]
        betas, decay = self.config.betas, self.config.weight_decay
        for group in self.param_groups:
            for p in (p for p in group["params"] if p.grad is not None):
                update = self.update_of(p, p.grad)
                if p in self.turning and self.angle:
                    self._turn(p, update, self.angle(group["lr"], decay, betas))
                else:
                    p.mul_(1 - group["lr"] * decay).add_(update, alpha=-group["lr"])

    def update_of(self, p: nn.Parameter, gradient: Tensor) -> Tensor:
        """What is subtracted of a tensor per unit of learning rate."""
        return self.direction(self.state[p], gradient, self.config.betas)

    def _turn(self, w: nn.Parameter, update: Tensor, angle: float) -> None:
        """Turn each row of w by about `angle`, against its part of `update`."""
        if w not in self.lengths:
            self.lengths[w] = torch.linalg.vector_norm(w, dim=-1, keepdim=True)
        state, length = self.state[w], self.lengths[w]
        along = (update * w).sum(-1, keepdim=True) / w.square().sum(-1, keepdim=True).clamp(TINY)
        across = update - along * w
        if "turns" not in state:
            state |= {"turns": torch.zeros(()), "across_sq": torch.zeros_like(length)}
        state["turns"] += 1
        state["across_sq"].lerp_(across.square().sum(-1, keepdim=True), 1 - FADE)
        usual = (state["across_sq"] / (1 - FADE ** state["turns"].item())).sqrt()
        w.sub_(angle * length * across / (usual + 1e-8))
        w.mul_(length / torch.linalg.vector_norm(w, dim=-1, keepdim=True).clamp(TINY))


def turns(name: str) -> bool:
    """Whether a rotational optimiser turns the tensor: A of a LoRA pair."""
    return ".lora_A." in name


def rotational(named: Named, config: TrainConfig, direction: Direction, angle: Angle) -> Along:
    """`Along` with turns.

    Raises:
        BadInput: without weight decay, of which the angle is.
    """
    if not config.weight_decay:
        raise BadInput(
            f"train.weight_decay is {config.weight_decay}; train.optimizer {config.optimizer!r} "
            "turns by an angle that it decides: give it a number above 0"
        )
    return Along(named, config, direction, angle)


def turning_bytes(name: str, shape: Sequence[int]) -> int:
    """What a turn keeps for a tensor: a number for each row, and a counter."""
    return 4 * (shape[0] + 1) if turns(name) else 0
