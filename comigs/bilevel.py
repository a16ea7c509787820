"""Local training of one client in one round: experts on train text, router on validation text.

Alternating minimisation of the bilevel objective (CoMiGS, arXiv 2409.13931, algorithm 1). Only the
level that steps requires grad, so neither level can see the other's gradient.
"""

import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from comigs.adapters import adapter_parameters, is_router, training_experts, training_router
from comigs.config import RunConfig
from comigs.data.tokens import random_windows
from comigs.errors import ComigsError
from comigs.evaluate import token_loss
from comigs.experts import balance_loss, expert_blocks, using_expert
from comigs.forward import forward_of
from comigs.hypergradient import hypergradient
from comigs.methods import find_method
from comigs.optimizers import adam_rates, make_optimizer, moments_of
from comigs.router import slot_counts
from comigs.schedules import learning_rate
from comigs.seeds import generator

Penalty = Callable[[Mapping[str, nn.Parameter]], Tensor]


@dataclass
class LocalStats:
    """What one round of local training did: mean losses in nats per token, and counts."""

    losses: list[float] = field(default_factory=list)
    balances: list[float] = field(default_factory=list)
    tokens: int = 0
    router_steps: int = 0


def train_locally(
    model: nn.Module,
    config: RunConfig,
    train: Tensor,
    valid: Tensor,
    moments: dict[str, Tensor],
    *,
    client: int | str,
    round_number: int,
    steps: int,
    steps_done: int,
    penalty: Penalty | None = None,
    on_step: Callable[[LocalStats], None] = lambda stats: None,
) -> tuple[dict[str, Tensor], LocalStats]:
    """Run one round's local steps on `model` in place.

    Args:
        train: token stream for the experts; also for routers that learn on it.
        valid: token stream for the router.
        moments: optimiser moments this client kept from its last round.
        steps: local steps in this round.
        steps_done: local steps of this client in earlier rounds; the counter of `router.every`.
        penalty: added to the loss of expert steps, from the trained tensors by name.
        on_step: called after every local step.

    Returns:
        The optimiser moments to keep, and the round's statistics.

    Raises:
        ComigsError: when a loss is not finite.
    """
    method = find_method(config.method)
    named = adapter_parameters(model)
    experts = {n: p for n, p in named.items() if not is_router(n) and method.learns(n)}
    routers = {n: p for n, p in named.items() if is_router(n) and config.router.trainable}
    joint = routers if method.router == "joint" else {}
    expert_optimizer = make_optimizer(experts, config.train, moments)
    router_optimizer = make_optimizer(routers, config.train, moments) if routers else None
    on_train = config.router.data == "train" or method.router == "train"
    batches = generator(config.seed, client, round_number, "train batches")
    router_batches = generator(config.seed, client, round_number, "router batches")
    total = config.rounds * steps
    stats = LocalStats()

    def draw(tokens: Tensor, rng: torch.Generator) -> Tensor:
        return random_windows(tokens, config.batch_size, config.data.seq_len, rng)

    if router_optimizer:
        _set_lr(router_optimizer, config.router.lr or config.train.lr)
    optimizers = [expert_optimizer] + ([router_optimizer] if router_optimizer and joint else [])
    for i in range(steps):
        at = (round_number - 1) * steps + i
        _set_lr(expert_optimizer, learning_rate(config.train.schedule, config.train.lr, at, total))
        alone = method.alone(at)
        mine = {n: p for n, p in experts.items() if not alone or f".{alone}." in n} | joint
        with (
            training_experts(model, mine.__contains__),
            using_expert(model, alone) if alone else nullcontext(),
        ):
            windows = draw(train, batches)
            loss, balance = _step(model, config, windows, mine, optimizers, penalty)
        stats.losses.append(loss)
        stats.balances.append(balance)
        stats.tokens += config.batch_size * config.data.seq_len
        if router_optimizer and not joint and (steps_done + i + 1) % config.router.every == 0:
            for _ in range(config.router.steps):
                windows = draw(train if on_train else valid, router_batches)
                if config.router.grad == "first_order":
                    seen = draw(train, router_batches)
                    _first_order_step(
                        model, config, seen, windows, experts, expert_optimizer, routers,
                        router_optimizer,
                    )  # fmt: skip
                else:
                    with training_router(model):
                        _step(model, config, windows, routers, [router_optimizer])
                stats.router_steps += 1
        on_step(stats)
    kept = moments_of(expert_optimizer, experts)
    if router_optimizer:
        kept |= moments_of(router_optimizer, routers)
    return kept, stats


def _step(
    model: nn.Module,
    config: RunConfig,
    windows: Tensor,
    parameters: dict[str, nn.Parameter],
    optimizers: list[torch.optim.Optimizer],
    penalty: Penalty | None = None,
) -> tuple[float, float]:
    """One step on loss = CE + lambda balance + penalty; returns (CE, balance) before it."""
    weight, importance = config.router.balance, config.router.generalist_importance
    parts = windows.split(config.micro_batch)
    for block in expert_blocks(model):
        block.counts = None  # of a step that was broken off, maybe another client's
    if len(parts) > 1 and weight:
        _count_whole_batch(model, parts, config.train.loss == "chunked")
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)
    seen = []
    with forward_of(model, config.train):
        for part in parts:
            share = len(part) / len(windows)
            part_ce = token_loss(model, part, "mean", config.train.loss == "chunked")
            part_balance = balance_loss(model, importance)
            ((part_ce + weight * part_balance) * share).backward()
            seen.append((part_ce.detach(), part_balance.detach(), share))
    ce = sum(value.item() * share for value, _, share in seen)
    balance = sum(value.item() * share for _, value, share in seen)
    if penalty and (extra := penalty(parameters)).requires_grad:
        extra.backward()
    for block in expert_blocks(model):
        block.routing = block.counts = None
    if not math.isfinite(ce + balance):
        raise ComigsError(
            f"the training loss is {ce} (balance {balance}); lower train.lr or set train.clip"
        )
    if config.train.clip:
        nn.utils.clip_grad_norm_(parameters.values(), config.train.clip)
    for optimizer in optimizers:
        optimizer.step()
    return ce, balance


def _first_order_step(
    model: nn.Module,
    config: RunConfig,
    train: Tensor,
    valid: Tensor,
    experts: dict[str, nn.Parameter],
    expert_optimizer: torch.optim.Optimizer,
    routers: dict[str, nn.Parameter],
    router_optimizer: torch.optim.Optimizer,
) -> None:
    """One router step along the first-order gradient of the bilevel objective.

    The inner steps are on one train and one validation batch, with AdamW's present step sizes.
    """
    router = config.router

    def loss(windows: Tensor) -> Tensor:
        ce = token_loss(model, windows, "mean", config.train.loss == "chunked")
        return ce + router.balance * balance_loss(model, router.generalist_importance)

    with (
        forward_of(model, config.train),
        training_experts(model, (experts | routers).__contains__),
    ):
        gradients = hypergradient(
            lambda step: loss(train),
            lambda step: loss(valid),
            list(experts.values()),
            list(routers.values()),
            rates=adam_rates(expert_optimizer),
            nu=router.nu,
            steps=router.inner_steps,
        )
    for block in expert_blocks(model):
        block.routing = block.counts = None
    if not all(torch.isfinite(gradient).all() for gradient in gradients):
        raise ComigsError("the router's gradient is not finite; lower train.lr or raise router.nu")
    for parameter, gradient in zip(routers.values(), gradients, strict=True):
        parameter.grad = gradient
    if config.train.clip:
        nn.utils.clip_grad_norm_(routers.values(), config.train.clip)
    router_optimizer.step()


@torch.no_grad()
def _count_whole_batch(model: nn.Module, parts: tuple[Tensor, ...], chunked: bool) -> None:
    """Set each block's slot counts to those of the whole batch.

    The balance loss is a product of counts and means, so micro-batches add up to the full batch
    only if each of them uses the whole batch's counts (cf. arXiv 2501.11873).
    """
    blocks = [b for b in expert_blocks(model) if b.router and b.top_k < len(b.names)]
    if not blocks:
        return
    for part in parts:
        token_loss(model, part, "sum", chunked)
        for block in blocks:
            assert block.routing is not None
            counts = slot_counts(block.routing)
            block.counts = counts if block.counts is None else block.counts + counts


def _set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr
