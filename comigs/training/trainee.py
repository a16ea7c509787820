"""One client in local training: what it trains, its optimisers, random streams and statistics."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import torch
from peft import PeftModel
from torch import Tensor, nn

from comigs.data.tokens import random_windows
from comigs.evaluation.metrics import Watch, watches
from comigs.federation.layers import of_round
from comigs.federation.run import Client
from comigs.methods.base import GLOBAL, Method, Within
from comigs.mixture.adapters import adapter_parameters, is_router
from comigs.seeds import generator
from comigs.training.activations import Activations
from comigs.training.optimizers import make_optimizer, moments_of
from comigs.training.twin import TwinModel

Penalty = Callable[[Mapping[str, nn.Parameter]], Tensor]


@dataclass
class LocalStats:
    """What one round of local training did: mean losses in nats per token, and counts.

    `watched` is what metrics of local steps tell, by name.
    """

    losses: list[float] = field(default_factory=list)
    balances: list[float] = field(default_factory=list)
    tokens: int = 0
    router_steps: int = 0
    watched: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Trainee:
    """One client in local training.

    Attributes:
        client: says how it trains, and names its random streams.
        model: its model, to be trained in place.
        train: token stream for the experts; also for routers that learn on it.
        valid: token stream for the router.
        moments: optimiser moments it kept from its last round; they change with training.
        steps_done: its local steps in earlier rounds; the counter of `router.every`.
        penalty: added to the loss of expert steps, from the trained tensors by name.
        kept: numbers that its method keeps from round to round, some of them learnt in training.
        tensors: the same for tensors (`comigs.training.twin`).
        twin_penalty: `penalty` of the global model's steps, where it trains one in turn.
        lr_factor: what the experts' learning rate is multiplied by.
    """

    client: Client
    model: PeftModel
    train: Tensor
    valid: Tensor
    moments: dict[str, Tensor]
    steps_done: int
    penalty: Penalty | None = None
    kept: dict[str, float] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    twin_penalty: Penalty | None = None
    lr_factor: float = 1.0


class Learner:
    """A trainee with its optimisers, random streams and statistics."""

    def __init__(self, trainee: Trainee, round_number: int) -> None:
        client = trainee.client
        method, config = client.method, client.config
        self.trainee, self.config = trainee, config
        trainee.model.requires_grad_(False)
        self.drops = [m for n, m in trainee.model.named_modules() if ".lora_dropout." in n]
        named = adapter_parameters(trainee.model)
        trained = of_round(config, client.number, round_number, named)
        self.experts = {n: p for n, p in trained.items() if not is_router(n) and method.learns(n)}
        self.routers = {n: p for n, p in named.items() if is_router(n) and config.router.trainable}
        self.joint = self.routers if method.router == "joint" else {}
        self.joining = {n: p for n, p in self.joint.items() if n in trained}
        self.expert_optimizer, self.router_optimizer = self._optimizers()
        self.twin: TwinModel | None = None
        if method.twin:
            self.twin = TwinModel(method.twin, named, trainee.kept, trainee.tensors)
            self.twin_optimizers = self._optimizers(GLOBAL)
        self.batches = generator(config.seed, client.number, round_number, "train batches")
        self.router_batches = generator(config.seed, client.number, round_number, "router batches")
        self.watches = watches(config.log.metrics or ())
        self.activations = Activations(named) if method.counts else None
        self.stats = LocalStats()

    def _optimizers(
        self, prefix: str = ""
    ) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer | None]:
        """Those of the experts and of the routers, with the moments kept under that prefix."""
        config, moments = self.config, self.trainee.moments
        experts, routers = (_prefixed(prefix, some) for some in (self.experts, self.routers))
        of_experts = make_optimizer(experts, config.train, moments)
        if not routers:
            return of_experts, None
        of_routers = make_optimizer(routers, config.train, moments)
        set_lr(of_routers, config.router.lr or config.train.lr)
        return of_experts, of_routers

    def draw(self, tokens: Tensor, rng: torch.Generator) -> Tensor:
        return random_windows(tokens, self.config.batch_size, self.config.data.seq_len, rng)

    def expert_part(self, phase: str | Within | None, at: int) -> "Part":
        """What it does in an expert step.

        Args:
            phase: what trains (`Method.phases`).
            at: number of the step in the run, from 0.
        """
        only = phase.expert if isinstance(phase, Within) else phase
        mine = {n: p for n, p in self.experts.items() if not only or f".{only}." in n}
        windows = self.draw(self.trainee.train, self.batches)
        of_global = self.twin is not None and at % 2 == 0
        pair = self.twin_optimizers if of_global else (self.expert_optimizer, self.router_optimizer)
        optimizers = [pair[0], pair[1]] if pair[1] and self.joint else [pair[0]]
        penalty = self.trainee.twin_penalty if of_global else self.trainee.penalty
        trained = mine | self.joining
        before_step = None
        if self.twin and self.twin.twin.mix and not of_global:
            before_step = partial(self.twin.from_mixture, trained)
        watched = tuple(self.watches.values())
        return Part(
            windows, trained, optimizers, penalty, of_global, before_step, watched, self.activations
        )

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
            with self.twin.training(part.of_global) if self.twin else nullcontext():
                yield
        finally:
            for parameter in part.parameters.values():
                parameter.requires_grad_(False)
            for drop in self.drops:
                drop.eval()

    def close(self) -> None:
        """End the round's steps."""
        if self.twin:
            self.twin.close()
        if self.activations:
            self.trainee.tensors.update(self.activations.shares())
        for name, watch in self.watches.items():
            self.stats.watched |= {f"{name}/{part}": value for part, value in watch.told().items()}

    def moments(self) -> dict[str, Tensor]:
        resting = self.trainee.moments if self.config.train.layers else {}
        kept = resting | moments_of(self.expert_optimizer, self.experts)
        if self.router_optimizer:
            kept |= moments_of(self.router_optimizer, self.routers)
        if self.twin:
            experts, routers = self.twin_optimizers
            kept |= moments_of(experts, _prefixed(GLOBAL, self.experts))
            kept |= moments_of(routers, _prefixed(GLOBAL, self.routers)) if routers else {}
        return kept


class Part(NamedTuple):
    """One client's part in a step."""

    windows: Tensor  # B x L+1
    parameters: dict[str, nn.Parameter]
    optimizers: list[torch.optim.Optimizer]
    penalty: Penalty | None = None
    of_global: bool = False  # whether it trains the global model, in turn with the client's own
    before_step: Callable[[], None] | None = None
    watches: Sequence[Watch] = ()
    activations: Activations | None = None


def _prefixed(prefix: str, named: Mapping[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    return {f"{prefix}{name}": parameter for name, parameter in named.items()}


def penalty_of(
    method: Method, start: Mapping[str, Tensor], mu: float, sent: Mapping[str, Tensor]
) -> Penalty | None:
    """The method's penalty, and mu / 2 ||w - w_now||^2 over the shared tensors (FedProx).

    Args:
        start: w_now, which is copied.
        sent: what the method's penalty may measure from (`Method.penalty`).
    """
    own = method.penalty
    if own is None and not mu:
        return None
    near = {n: t.detach().clone() for n, t in start.items() if mu and method.shares(n)}

    def penalty(parameters: Mapping[str, nn.Parameter]) -> Tensor:
        total = own(parameters, sent) if own else torch.zeros(())
        for name in (n for n in parameters if n in near):
            total = total + mu / 2 * (parameters[name] - near[name]).square().sum()
        return total

    return penalty


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr
