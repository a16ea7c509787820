"""Local training in one round: experts on train text, routers on validation text.

Alternating minimisation of the bilevel objective (CoMiGS, arXiv 2409.13931, algorithm 1). Only the
level that steps requires grad, so neither level can see the other's gradient. Several clients of
one shape may share every pass (`comigs.mixture.fused`); one client is a group of one.
"""

import math
from collections.abc import Sequence
from contextlib import ExitStack
from functools import cache

import torch
from peft import PeftModel
from torch import Tensor, nn

from comigs.config.settings import ClientConfig
from comigs.data.windows import FILLING, is_marked, predicted, real
from comigs.errors import ComigsError
from comigs.evaluation.perplexity import mean_losses, token_loss
from comigs.federation.run import Client
from comigs.mixture.experts import balance_loss, expert_blocks, routings, using_expert
from comigs.mixture.forward import forward_of
from comigs.mixture.fused import join
from comigs.mixture.router import slot_counts
from comigs.training.hypergradient import hypergradient
from comigs.training.optimizers import find_optimizer
from comigs.training.schedules import rates_of
from comigs.training.trainee import Learner, LocalStats, Part, Penalty, Trainee, set_lr


def train_locally(
    client: Client,
    model: PeftModel,
    train: Tensor,
    valid: Tensor,
    moments: dict[str, Tensor],
    *,
    round_number: int,
    steps: int,
    steps_done: int,
    penalty: Penalty | None = None,
) -> tuple[dict[str, Tensor], LocalStats]:
    """`train_group` for one client; see `Trainee` for the arguments."""
    trainee = Trainee(client, model, train, valid, moments, steps_done, penalty)
    [result] = train_group([trainee], round_number=round_number, steps=steps)
    return result


def train_group(
    trainees: Sequence[Trainee], *, round_number: int, steps: int
) -> list[tuple[dict[str, Tensor], LocalStats]]:
    """Run one round's local steps of each client, all of them in the same passes.

    Args:
        trainees: clients of one method, whose models have equal shapes over the same base.
        steps: local steps in this round.

    Returns:
        Per client the optimiser moments to keep, and the round's statistics.

    Raises:
        ComigsError: when a client's loss is not finite.
    """
    method, config = trainees[0].client.method, trainees[0].client.config
    learners = [Learner(trainee, round_number) for trainee in trainees]
    on_train = config.router.data == "train" or method.router == "train"
    rate_at = rates_of(config, steps)

    @cache
    def joined(members: tuple[int, ...]) -> nn.Module:
        return join([trainees[i].model for i in members])

    everyone = joined(tuple(range(len(learners))))
    for i in range(steps):
        at = (round_number - 1) * steps + i
        rate = rate_at(at)
        phase = method.phases[at % len(method.phases)]
        parts = [learner.expert_part(phase, at) for learner in learners]
        with ExitStack() as levels:
            if isinstance(phase, str):
                levels.enter_context(using_expert(everyone, phase))
            for learner, part in zip(learners, parts, strict=True):
                set_lr(part.optimizers[0], rate * learner.trainee.lr_factor)
                levels.enter_context(learner.training(part, dropout=True))
            losses = _step(everyone, config, parts)
        for learner, (loss, balance) in zip(learners, losses, strict=True):
            learner.stats.losses.append(loss)
            learner.stats.balances.append(balance)
            learner.stats.tokens += config.batch_size * config.data.seq_len
        if due := tuple(e for e, learner in enumerate(learners) if learner.router_is_due(i + 1)):
            for _ in range(config.router.steps):
                _router_step(joined(due), config, [learners[e] for e in due], on_train)
    for learner in learners:
        learner.close()
    return [(learner.moments(), learner.stats) for learner in learners]


def _router_step(
    model: nn.Module, config: ClientConfig, learners: list[Learner], on_train: bool
) -> None:
    """One router step of each of these clients; first-order gradients one client at a time."""
    parts = []
    for learner in learners:
        trainee = learner.trainee
        part = learner.router_part(trainee.train if on_train else trainee.valid)
        if config.router.grad == "first_order":
            seen = learner.draw(trainee.train, learner.router_batches)
            _first_order_step(learner, config, seen, part.windows)
        parts.append(part)
        learner.stats.router_steps += 1
    if config.router.grad == "first_order":
        return
    with ExitStack() as levels:
        for learner, part in zip(learners, parts, strict=True):
            levels.enter_context(learner.training(part, dropout=False))
        _step(model, config, parts)


def _step(model: nn.Module, config: ClientConfig, group: list[Part]) -> list[tuple[float, float]]:
    """One step of each client on its own CE + lambda balance + penalty.

    The clients' losses are added up for one backward pass: none depends on another's tensors.

    Args:
        model: runs the whole group.

    Returns:
        Per client (CE, balance) before the step.
    """
    weight, importance = config.router.balance, config.router.generalist_importance
    windows = torch.stack([p.windows for p in group]) if len(group) > 1 else group[0].windows
    parts = windows.split(config.micro_batch, -2)
    counts = _slots_of(model, parts, config) if len(parts) > 1 and weight else None
    shares = [_shares(part, windows) for part in parts]
    for client in group:
        for optimizer in client.optimizers:
            optimizer.zero_grad(set_to_none=True)
    seen = []
    with forward_of(model, config.train):
        for part, share in zip(parts, shares, strict=True):
            ce = _loss(model, part, config)
            balance = balance_loss(model, importance, counts, real(part))
            of_ce, of_balance = share.to(ce)
            (ce * of_ce + weight * balance * of_balance).sum().backward()
            for i, client in enumerate(group):
                if client.activations:
                    client.activations.add(routings(model), i, real(part))
            seen.append(torch.stack([ce.detach(), balance.detach().to(ce.device).expand_as(ce)]))
    sums = [[0.0, 0.0] for _ in group]
    for values, share in zip(seen, shares, strict=True):
        each, weighed = (x.reshape(2, -1).t().tolist() for x in (values, share))
        for total, value, weights in zip(sums, each, weighed, strict=True):
            total[0] += value[0] * weights[0]
            total[1] += value[1] * weights[1]
    for client in group:
        if client.penalty and (extra := client.penalty(client.parameters)).requires_grad:
            extra.backward()
    for ce_sum, balance_sum in sums:
        if not math.isfinite(ce_sum + balance_sum):
            raise ComigsError(
                f"the training loss is {ce_sum} (balance {balance_sum}); lower train.lr or set "
                "train.clip"
            )
    for client in group:
        if client.before_step:
            client.before_step()
        if config.train.clip:
            nn.utils.clip_grad_norm_(client.parameters.values(), config.train.clip)
        for watch in client.watches:
            watch.before(client.parameters)
        for optimizer in client.optimizers:
            optimizer.step()
        for watch in client.watches:
            watch.after(client.parameters)
    return [(ce_sum, balance_sum) for ce_sum, balance_sum in sums]


def _shares(part: Tensor, windows: Tensor) -> Tensor:
    """What a micro-batch (... x b x L+1) counts in its batch (... x B x L+1), float64, 2 x ...

    Its share of the tokens that are predicted, for the cross-entropy, and of all that are no
    filling, for the balance: of plain text its share of the windows.
    """
    if not is_marked(windows):
        share = part.shape[-2] / windows.shape[-2]
        return torch.full((2, *part.shape[:-2]), share, dtype=torch.float64)
    read, all_read = (w[..., :-1].ne(FILLING).sum((-2, -1)) for w in (part, windows))
    return torch.stack([predicted(part) / predicted(windows).double(), read / all_read.double()])


def _loss(model: nn.Module, windows: Tensor, config: ClientConfig) -> Tensor:
    """Mean cross-entropy of one client's windows, or of each of n clients' (n x B x L+1)."""
    if windows.ndim == 2:
        return token_loss(model, windows, "mean", config.train.loss == "chunked")
    return mean_losses(model, windows)


def _first_order_step(learner: Learner, config: ClientConfig, train: Tensor, valid: Tensor) -> None:
    """One router step along the first-order gradient of the bilevel objective.

    The inner steps are on one train and one validation batch, with the optimiser's present step
    sizes. Dropout is off, as in alternation: it would be another mask in each of two gradients
    whose difference is divided by nu.
    """
    router, model, routers = config.router, learner.trainee.model, learner.routers
    rates = find_optimizer(config.train.optimizer).rates
    assert learner.router_optimizer and rates

    def loss(windows: Tensor) -> Tensor:
        ce = token_loss(model, windows, "mean", config.train.loss == "chunked")
        balance = balance_loss(model, router.generalist_importance, real=real(windows))
        return ce + router.balance * balance

    everything = Part(valid, learner.experts | routers, [])
    with forward_of(model, config.train), learner.training(everything, dropout=False):
        gradients = hypergradient(
            lambda step: loss(train),
            lambda step: loss(valid),
            list(learner.experts.values()),
            list(routers.values()),
            rates=rates(learner.expert_optimizer),
            nu=router.nu,
            steps=router.inner_steps,
        )
    if not all(torch.isfinite(gradient).all() for gradient in gradients):
        raise ComigsError("the router's gradient is not finite; lower train.lr or raise router.nu")
    for parameter, gradient in zip(routers.values(), gradients, strict=True):
        parameter.grad = gradient
    if config.train.clip:
        nn.utils.clip_grad_norm_(routers.values(), config.train.clip)
    learner.router_optimizer.step()


@torch.no_grad()
def _slots_of(
    model: nn.Module, parts: tuple[Tensor, ...], config: ClientConfig
) -> list[Tensor] | None:
    """The whole batch's slot counts of each layer; None where every token chooses every expert.

    The balance loss is a product of counts and means, so micro-batches add up to the full batch
    only if each of them uses the whole batch's counts (cf. arXiv 2501.11873).
    """
    if not any(block.router and block.top_k < len(block.names) for block in expert_blocks(model)):
        return None
    total: list[Tensor] = []
    for part in parts:
        _loss(model, part, config)
        counts = [slot_counts(routing, real(part)) for routing in routings(model)]
        total = [a + b for a, b in zip(total, counts, strict=True)] if total else counts
    return total
