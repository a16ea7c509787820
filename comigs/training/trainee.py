"""One client in local training: what it trains, its optimisers, random streams and statistics."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from peft import PeftModel
from torch import Tensor, nn

from comigs.data.tokens import random_windows
from comigs.federation.run import Client
from comigs.methods.base import Method
from comigs.mixture.adapters import adapter_parameters, is_router
from comigs.seeds import generator
from comigs.training.optimizers import make_optimizer, moments_of

Penalty = Callable[[Mapping[str, nn.Parameter]], Tensor]


@dataclass
class LocalStats:
    """What one round of local training did: mean losses in nats per token, and counts."""

    losses: list[float] = field(default_factory=list)
    balances: list[float] = field(default_factory=list)
    tokens: int = 0
    router_steps: int = 0


@dataclass(frozen=True)
class Trainee:
    """One client in local training.

    Attributes:
        client: says how it trains, and names its random streams.
        model: its model, to be trained in place.
        train: token stream for the experts; also for routers that learn on it.
        valid: token stream for the router.
        moments: optimiser moments it kept from its last round.
        steps_done: its local steps in earlier rounds; the counter of `router.every`.
        penalty: added to the loss of expert steps, from the trained tensors by name.
    """

    client: Client
    model: PeftModel
    train: Tensor
    valid: Tensor
    moments: dict[str, Tensor]
    steps_done: int
    penalty: Penalty | None = None


class Learner:
    """A trainee with its optimisers, random streams and statistics."""

    def __init__(self, trainee: Trainee, round_number: int) -> None:
        client = trainee.client
        method, config = client.method, client.config
        self.trainee, self.config = trainee, config
        trainee.model.requires_grad_(False)
        self.drops = [m for n, m in trainee.model.named_modules() if ".lora_dropout." in n]
        named = adapter_parameters(trainee.model)
        self.experts = {n: p for n, p in named.items() if not is_router(n) and method.learns(n)}
        self.routers = {n: p for n, p in named.items() if is_router(n) and config.router.trainable}
        self.joint = self.routers if method.router == "joint" else {}
        self.expert_optimizer = make_optimizer(self.experts, config.train, trainee.moments)
        self.router_optimizer: torch.optim.Optimizer | None = None
        if self.routers:
            self.router_optimizer = make_optimizer(self.routers, config.train, trainee.moments)
            set_lr(self.router_optimizer, config.router.lr or config.train.lr)
        self.batches = generator(config.seed, client.number, round_number, "train batches")
        self.router_batches = generator(config.seed, client.number, round_number, "router batches")
        self.stats = LocalStats()

    def draw(self, tokens: Tensor, rng: torch.Generator) -> Tensor:
        return random_windows(tokens, self.config.batch_size, self.config.data.seq_len, rng)

    def expert_part(self, alone: str | None) -> "Part":
        """What it does in an expert step.

        Args:
            alone: the one expert that trains; None for all.
        """
        mine = {n: p for n, p in self.experts.items() if not alone or f".{alone}." in n}
        optimizers = [self.expert_optimizer]
        if self.router_optimizer and self.joint:
            optimizers.append(self.router_optimizer)
        windows = self.draw(self.trainee.train, self.batches)
        return Part(windows, mine | self.joint, optimizers, self.trainee.penalty)

    def router_part(self, tokens: Tensor) -> "Part":
        """What it does in a router step on `tokens`."""
        assert self.router_optimizer
        windows = self.draw(tokens, self.router_batches)
        return Part(windows, self.routers, [self.router_optimizer])

    def router_is_due(self, steps: int) -> bool:
        """Whether router steps follow the local step that ends `steps` steps of this round."""
        if not self.router_optimizer or self.joint:
            return False
        return (self.trainee.steps_done + steps) % self.config.router.every == 0

    @contextmanager
    def training(self, part: "Part", dropout: bool) -> Iterator[None]:
        """Within the context only the part's tensors require grad; LoRA dropout on or off.

        As `training_experts` and `training_router`, which have to look for the tensors first.
        """
        for parameter in part.parameters.values():
            parameter.requires_grad_(True)
        for drop in self.drops:
            drop.train(dropout)
        try:
            yield
        finally:
            for parameter in part.parameters.values():
                parameter.requires_grad_(False)
            for drop in self.drops:
                drop.eval()

    def moments(self) -> dict[str, Tensor]:
        kept = moments_of(self.expert_optimizer, self.experts)
        if self.router_optimizer:
            kept |= moments_of(self.router_optimizer, self.routers)
        return kept


class Part(NamedTuple):
    """One client's part in a step."""

    windows: Tensor  # B x L+1
    parameters: dict[str, nn.Parameter]
    optimizers: list[torch.optim.Optimizer]
    penalty: Penalty | None = None


def penalty_of(
    method: Method, model: PeftModel, mu: float, sent: Mapping[str, Tensor]
) -> Penalty | None:
    """The method's penalty, and mu / 2 ||w - w_now||^2 over the shared tensors (FedProx).

    Args:
        sent: what the method's penalty may measure from (`Method.penalty`).
    """
    own = method.penalty
    if own is None and not mu:
        return None
    near = {name: tensor.to(model.device) for name, tensor in sent.items()}
    start = {n: p.detach().clone() for n, p in adapter_parameters(model).items()} if mu else {}

    def penalty(parameters: Mapping[str, nn.Parameter]) -> Tensor:
        total = own(parameters, near) if own else torch.zeros(())
        for name in (n for n in parameters if mu and method.shares(n)):
            total = total + mu / 2 * (parameters[name] - start[name]).square().sum()
        return total

    return penalty


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr
