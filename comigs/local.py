"""What one device does in one round: load its state, train, save; and its final evaluation."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn

from comigs.adapters import (
    adapter_parameters,
    adapter_tensors,
    init_adapters,
    load_adapter_tensors,
)
from comigs.base import expert_model, load_base
from comigs.bilevel import LocalStats, Penalty, train_locally
from comigs.config import ExpertsConfig, RunConfig
from comigs.data.tokens import ClientData, client_data, pooled_data, roster
from comigs.deltas import clear_deltas
from comigs.evaluate import perplexity
from comigs.methods import find_method
from comigs.ranks import cut
from comigs.receive import Arrival, finish, receive
from comigs.seeds import derive
from comigs.state import read_state, write_state


def training_clients(config: RunConfig) -> tuple[str, ...]:
    """Names of the clients that train: the roster, or one that holds everybody's text."""
    return ("all",) if find_method(config.method).pooled else roster(config)


def data_of(config: RunConfig, client: int) -> ClientData:
    pooled = find_method(config.method).pooled
    return pooled_data(config) if pooled else client_data(config, client)


def experts_of(config: RunConfig, client: int) -> ExpertsConfig:
    """The client's experts in the layout of the method."""
    return find_method(config.method).experts(config.experts.for_client(client))


def model_of(config: RunConfig, client: int, rank: int | None = None) -> PeftModel:
    """This process's model of the client's shape; its adapter values are whoever used it last.

    Args:
        rank: the client's LoRA rank now, if pruning has changed it.
    """
    experts = experts_of(config, client)
    return expert_model(config.model, replace(experts, rank=rank) if rank else experts)


def steps_per_round(config: RunConfig) -> int:
    """Local steps of one training client in one round; the same in total for every method."""
    pooled = find_method(config.method).pooled
    return config.local_steps * (len(roster(config)) if pooled else 1)


def restore(
    config: RunConfig, client: int, root: Path, state_round: int
) -> tuple[PeftModel, dict[str, Tensor], dict[str, Any]]:
    """Return the client's model, moments and counters as of `state_round` (0: the start)."""
    if state_round == 0:
        model = model_of(config, client)
        clear_deltas(model)
        init_adapters(model, config.seed, client, find_method(config.method).shares)
        return model, {}, {"steps_done": 0}
    tensors, meta = read_state(root, state_round)
    model = model_of(config, client, meta.get("rank"))
    clear_deltas(model)
    load_adapter_tensors(model, tensors["tensors"])
    return model, tensors["optimizer"], meta


def start_of(config: RunConfig) -> dict[str, Tensor]:
    """The shared tensors before round 1, which all clients have in common."""
    model = model_of(config, 0)
    shares = find_method(config.method).shares
    clear_deltas(model)
    init_adapters(model, config.seed, 0, shares)
    return {name: tensor for name, tensor in adapter_tensors(model).items() if shares(name)}


def train_round(
    config: RunConfig,
    client: int,
    round_number: int,
    state_round: int,
    shared: Mapping[str, Tensor],
    root: Path,
    proximal_mu: float = 0.0,
    on_step: Callable[[LocalStats], None] = lambda stats: None,
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Train one client for one round and save its state under `root`.

    Args:
        round_number: the round to train, from 1.
        state_round: the round whose saved state to start from; 0 for a client's first.
        shared: what the server sent; empty in round 1.
        root: the client's state folder.
        proximal_mu: weight of FedProx's pull towards the tensors that the round started from.

    Returns:
        All adapter tensors after training, and metrics.

    Raises:
        ComigsError: on a non-finite loss, a damaged state or a full disk; the state of earlier
            rounds stays.
    """
    begin = time.perf_counter()
    method = find_method(config.method)
    data = data_of(config, client)
    model, moments, meta = restore(config, client, root, state_round)
    mark = time.perf_counter()
    metrics = receive(Arrival(model, shared, moments, data, config, client, round_number))
    penalty = _penalty(config, model, proximal_mu)
    if config.log.eval_every and (round_number - 1) % config.log.eval_every == 0:
        metrics["valid_ppl"] = perplexity(model, data.valid, config.data.seq_len)
    trained = time.perf_counter()
    metrics["eval_seconds"] = trained - mark
    steps = steps_per_round(config)
    with torch.random.fork_rng():
        torch.manual_seed(derive(config.seed, client, round_number, "dropout"))
        moments, stats = train_locally(
            model,
            config,
            data.train,
            data.valid,
            moments,
            client=client,
            round_number=round_number,
            steps=steps,
            steps_done=meta["steps_done"],
            penalty=penalty,
            on_step=on_step,
        )
    metrics["train_seconds"] = time.perf_counter() - trained
    tensors = adapter_tensors(model)
    meta = meta | {"steps_done": meta["steps_done"] + steps}
    if method.prune:
        meta["rank"] = method.prune(shared, tensors)
        tensors = cut(tensors, meta["rank"], config.experts)
        moments = cut(moments, meta["rank"])
    write_state(root, round_number, {"tensors": tensors, "optimizer": moments}, meta)
    metrics |= {
        "loss": sum(stats.losses) / len(stats.losses),
        "balance": sum(stats.balances) / len(stats.balances),
        "tokens": stats.tokens,
        "steps": steps,
        "router_steps": stats.router_steps,
        "num-examples": len(data.train),
        "seconds": time.perf_counter() - begin,
    }
    return tensors, metrics


def _penalty(config: RunConfig, model: PeftModel, mu: float) -> Penalty | None:
    """The method's penalty, and mu / 2 ||w - w_now||^2 over the shared tensors (FedProx)."""
    method = find_method(config.method)
    if not mu:
        return method.penalty
    start = {name: p.detach().clone() for name, p in adapter_parameters(model).items()}

    def penalty(parameters: Mapping[str, nn.Parameter]) -> Tensor:
        total = method.penalty(parameters) if method.penalty else torch.zeros(())
        for name, parameter in parameters.items():
            if method.shares(name):
                total = total + mu / 2 * (parameter - start[name]).square().sum()
        return total

    return penalty


def final_evaluation(
    config: RunConfig, client: int, state_round: int, shared: Mapping[str, Tensor], root: Path
) -> list[dict[str, Any]]:
    """Test perplexities of a client: of the bare base, before and after the last averaging.

    The only place that reads a test split. One row per test stream (several when pooled). The final
    model is saved in `root`/final.
    """
    method = find_method(config.method)
    data = data_of(config, client)
    base = load_base(config.model.name, config.model.dtype)
    length = config.data.seq_len
    rows: list[dict[str, Any]] = [
        {"name": name, "test_tokens": len(test), "pretrained": perplexity(base, test, length)}
        for name, test in data.tests.items()
    ]
    if not method.trains:
        valid = perplexity(base, data.valid, length)
        return [
            row
            | {"valid": valid, "before": row["pretrained"], "after": row["pretrained"]}
            | {"trainable": 0}
            for row in rows
        ]
    model, moments, meta = restore(config, client, root, state_round)
    trainable = sum(p.numel() for n, p in adapter_parameters(model).items() if method.learns(n))
    for row in rows:
        row["before"] = perplexity(model, data.tests[row["name"]], length)
    arrival = Arrival(model, shared, moments, data, config, client, config.rounds + 1)
    extra = receive(arrival) | finish(arrival)
    write_state(root / "final", state_round, {"tensors": adapter_tensors(model)}, meta)
    valid = perplexity(model, data.valid, length)
    for row in rows:
        same = not shared and not method.finish
        after = row["before"] if same else perplexity(model, data.tests[row["name"]], length)
        row |= {"after": after, "valid": valid, "trainable": trainable, **extra}
    return rows
