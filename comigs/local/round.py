"""What one device does in one round: load its state, train, save."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor

from comigs.data.tokens import amount
from comigs.evaluation.metrics import measured
from comigs.evaluation.perplexity import evaluate
from comigs.federation.clients import data_of, model_of
from comigs.federation.layers import of_round
from comigs.federation.run import Client, Run
from comigs.influence.selection import CHOSEN, choose, chosen_of, narrowed
from comigs.local.known import KNOWN
from comigs.local.outgoing import left_of, outgoing
from comigs.local.receive import receive
from comigs.local.reference import reference
from comigs.local.swa import SWA, mean_after, mean_of
from comigs.messages.fields import METRIC
from comigs.methods.arrival import Arrival
from comigs.methods.base import GLOBAL, Travels
from comigs.mixture.adapters import (
    adapter_parameters,
    adapter_tensors,
    init_adapters,
    load_adapter_tensors,
)
from comigs.mixture.deltas import clear_deltas
from comigs.mixture.ranks import cut, rank_of
from comigs.seeds import derive
from comigs.store.state import read_state, write_state
from comigs.training.bilevel import train_group
from comigs.training.trainee import LocalStats, Penalty, Trainee, penalty_of


def restore(
    client: Client, root: Path, state_round: int, slot: int = 0
) -> tuple[PeftModel, dict[str, Tensor], dict[str, Tensor], dict[str, Any]]:
    """Return the client's model, moments, kept tensors and counters as of `state_round`.

    Args:
        state_round: 0 for the start.
    """
    if state_round == 0:
        model = model_of(client, slot=slot)
        clear_deltas(model)
        init_adapters(model, client.config.seed, client.number, client.method.shares)
        return model, {}, {}, {"steps_done": 0}
    tensors, meta = read_state(root, state_round)
    model = model_of(client, meta.get("rank"), slot)
    clear_deltas(model)
    load_adapter_tensors(model, tensors["tensors"])
    return model, tensors["optimizer"], tensors.get("kept", {}), meta


def start_of(run: Run) -> dict[str, Tensor]:
    """The shared tensors before round 1, which all clients have in common."""
    model, shares = model_of(run.client(0)), run.method.shares
    clear_deltas(model)
    init_adapters(model, run.config.seed, 0, shares)
    return {name: tensor for name, tensor in adapter_tensors(model).items() if shares(name)}


@dataclass(frozen=True)
class Order:
    """What the server asks of one client in one round.

    Attributes:
        client: who.
        round: the round to train, from 1.
        state_round: the round whose saved state to start from; 0 for a client's first.
        shared: what the server sent; empty in round 1.
        root: the client's state folder.
        proximal_mu: weight of FedProx's pull towards the tensors that the round started from.
        kept_round: a round whose saved state is kept, however old it gets; None: no other.
        lr_factor: what the experts' learning rate is multiplied by.
    """

    client: Client
    round: int
    state_round: int
    shared: Mapping[str, Tensor]
    root: Path
    proximal_mu: float = 0.0
    kept_round: int | None = None
    lr_factor: float = 1.0


@dataclass(frozen=True)
class Begun:
    """A client that is ready to train: its state is loaded, what arrived is in its model."""

    order: Order
    trainee: Trainee
    meta: dict[str, Any]
    metrics: dict[str, float]
    seconds: float
    chosen: dict[str, Tensor]


Trained = tuple[dict[str, Tensor], dict[str, float]]  # adapter tensors (`outgoing`), and metrics


def train_round(order: Order) -> Trained:
    """Train one client for one round and save its state.

    Raises:
        ComigsError: on a non-finite loss, a damaged state or a full disk; the state of earlier
            rounds stays.
    """
    begun = begin_round(order)
    [trained] = train_begun([begun])
    return end_round(begun, *trained)


def begin_round(order: Order, slot: int = 0) -> Begun:
    """Load the client's state, take in what the server sent, and evaluate on validation text.

    Args:
        slot: number of the client among those that train at the same time (`expert_model`).
    """
    begin = time.perf_counter()
    client, config, shared = order.client, order.client.config, order.shared
    whole = data_of(client)
    model, moments, tensors, meta = restore(client, order.root, order.state_round, slot)
    chosen = chosen_of(client, order.root, order.state_round)
    chosen = chosen or choose(client, model, whole, meta["steps_done"])
    data = narrowed(client, whole, chosen)
    mark = time.perf_counter()
    kept = dict(meta.get("kept", {}))
    number = client.number
    arrival = Arrival(model, shared, moments, data, config, number, order.round, kept, tensors)
    metrics = receive(client.run, arrival)
    if config.log.eval_every and (order.round - 1) % config.log.eval_every == 0:
        metrics["valid_ppl"] = evaluate(model, data.valid, config)
        more = measured(config.log.metrics or (), model, data.valid, config)
        metrics |= {f"{METRIC}{name}": value for name, value in more.items()}
    end = time.perf_counter()
    metrics |= {"eval_seconds": end - mark, "num-examples": amount(whole.train)}
    steps_done = meta["steps_done"]
    trainee = Trainee(
        client, model, data.train, data.valid, moments, steps_done,
        kept=kept, tensors=tensors, lr_factor=order.lr_factor, **_penalties(order, model, tensors),
    )  # fmt: skip
    return Begun(order, trainee, meta, metrics, end - begin, chosen)


def _penalties(
    order: Order, model: PeftModel, tensors: Mapping[str, Tensor]
) -> dict[str, Penalty | None]:
    """The penalties of a `Trainee`: FedProx's is of the tensors that travel."""
    run, method, mu = order.client.run, order.client.method, order.proximal_mu
    named, device = adapter_parameters(model), model.device
    sent: dict[str, Tensor] = {}
    if method.penalty:
        shapes = {name: tuple(p.shape) for name, p in named.items() if method.shares(name)}
        sent = reference(run, order.client.number, order.round, order.shared, shapes)
        sent = {name: tensor.to(device) for name, tensor in sent.items()}
    if not method.twin:
        return {"penalty": penalty_of(method, named, mu, sent)}
    start = {n: tensors.get(f"{GLOBAL}{n}", p.detach()).to(device) for n, p in named.items()}
    return {
        "penalty": penalty_of(method, named, 0.0, sent),
        "twin_penalty": penalty_of(replace(method, penalty=None), start, mu, {}),
    }


def train_begun(
    group: Sequence[Begun],
) -> list[tuple[dict[str, Tensor], LocalStats, float]]:
    """Run the local steps of a round, for several clients in the same passes.

    Returns:
        Per client its optimiser moments, statistics, and share of the seconds.
    """
    begin = time.perf_counter()
    first = group[0].order
    run, number = first.client.run, first.client.number
    with torch.random.fork_rng():
        torch.manual_seed(derive(run.config.seed, number, first.round, "dropout"))
        results = train_group(
            [each.trainee for each in group],
            round_number=first.round,
            steps=run.steps_per_round,
        )
    seconds = (time.perf_counter() - begin) / len(group)
    return [(moments, stats, seconds) for moments, stats in results]


def end_round(
    begun: Begun, moments: dict[str, Tensor], stats: LocalStats, seconds: float
) -> Trained:
    """Save what `train_begun` left, and return what may be sent of it.

    Args:
        seconds: that its training took.
    """
    begin = time.perf_counter()
    order, client, config = begun.order, begun.order.client, begun.order.client.config
    steps = client.run.steps_per_round
    trainee = begun.trainee
    tensors = adapter_tensors(trainee.model)
    kept = {"kept": trainee.kept} if trainee.kept else {}
    meta = begun.meta | kept | {"steps_done": begun.meta["steps_done"] + steps}
    if client.method.prune:
        received = order.shared
        if received:  # in the configured rank and its scale
            received = cut(received, rank_of(tensors), config.experts)
        meta["rank"] = client.method.prune(received, tensors)
        tensors = cut(tensors, meta["rank"], config.experts)
        moments = cut(moments, meta["rank"])
    before = mean_of(client, order.root, order.state_round)
    mean, counted = mean_after(client, order.round, tensors, begun.meta, before)
    meta |= counted
    left = left_of(config.payload, order.root, order.state_round)
    travels = _travels(client, meta.get("kept", {}), order.round)
    mine = _global_of(trainee) if client.method.twin else tensors
    mine = of_round(config, client.number, order.round, {**mine, **_besides(trainee, tensors)})
    sent, left = outgoing(client, order.round, mine, order.shared, left)
    known = dict(order.shared) if config.payload.down != "none" else {}
    more = {"unsent": left, "kept": trainee.tensors, KNOWN: known, CHOSEN: begun.chosen, SWA: mean}
    state = {"tensors": tensors, "optimizer": moments}
    state |= {name: some for name, some in more.items() if some}
    write_state(order.root, order.round, state, meta, order.kept_round)
    metrics = begun.metrics | {
        "loss": sum(stats.losses) / len(stats.losses),
        "balance": sum(stats.balances) / len(stats.balances),
        "tokens": stats.tokens,
        "steps": steps,
        "router_steps": stats.router_steps,
        "router_tokens": stats.router_steps * config.batch_size * config.data.seq_len,
        "train_seconds": seconds,
        "seconds": begun.seconds + seconds + time.perf_counter() - begin,
        **{f"{METRIC}{name}": value for name, value in stats.watched.items()},
    }
    if client.run.may_rest:
        metrics["fetches"] = int(travels.down)
    return sent if travels.up else {}, metrics


def _travels(client: Client, kept: Mapping[str, float], number: int) -> Travels:
    rests = client.method.rests
    return rests(kept, number) if rests and client.run.may_rest else Travels(up=True, down=True)


def _besides(trainee: Trainee, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    method = trainee.client.method
    shapes = {name: tuple(t.shape) for name, t in tensors.items() if method.shares(name)}
    return {
        name: trainee.tensors.get(name, torch.zeros(shape))
        for name, shape in method.besides(shapes).items()
    }


def _global_of(trainee: Trainee) -> dict[str, Tensor]:
    held = trainee.tensors.items()
    return {name.removeprefix(GLOBAL): t for name, t in held if name.startswith(GLOBAL)}
