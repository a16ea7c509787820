"""FedALA: each weight of a client takes its own share of the mean (arXiv 2212.01197).

A client begins a round from (the paper's adaptive local aggregation)

    theta_i = own_i + (mean - own_i) * W_i,    W_i elementwise in [0, 1], first 1

in the last HIGHER decoder layers; below them it takes the mean. W is learnt on training text, with
all else frozen, and stays on the device for the next round:

    W <- clip(W - ETA grad_theta L(theta_i) * (mean - own_i), 0, 1)

At first as often as it takes (until the loss of the last WINDOW passes is steady), later in one
pass, through SHARE of the sequences that a round trains on: the paper's round is an epoch of the
client's text, and a pass is 80 % of that. These passes come on top of the local steps that every
method makes, and count as computing. The layout, and all else, is that of `fedavg-moe`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from comigs.config.settings import RunConfig
from comigs.methods.base import Method, all_generalists, everything, same_experts

if TYPE_CHECKING:
    from torch import Tensor

    from comigs.methods.arrival import Arrival

HIGHER = 1  # p: decoder layers that mix, from the last
SHARE = 0.8  # s
ETA = 1.0
WINDOW = 10  # passes whose losses' standard deviation
STEADY = 0.01  # has come below this when W is learnt
MOST = 100  # passes

WEIGHT = "weight/"  # before a tensor's name: its W, among what the device keeps


def layer_of(name: str) -> int:
    """The decoder layer of a tensor; -1 of none."""
    found = re.search(r"\.(\d+)\.", name)
    return int(found[1]) if found else -1


def higher(names: Iterable[str]) -> list[str]:
    """Those in the last HIGHER decoder layers."""
    layers = {name: layer_of(name) for name in names}
    last = max(layers.values())
    return [name for name, layer in layers.items() if layer > max(-1, last - HIGHER)]


def learnt(weight: Tensor, gradient: Tensor, gap: Tensor) -> Tensor:
    """clip(W - ETA gradient * (mean - own), 0, 1)."""
    return (weight - ETA * gradient * gap).clamp(0, 1)


def batches_of(config: RunConfig) -> int:
    """Batches of a pass."""
    return max(1, round(SHARE * config.local_steps))


def looks(config: RunConfig) -> int:
    """Tokens before a round in which all take part, on average, if W settles as early as it can."""
    one = batches_of(config) * config.batch_size * config.data.seq_len
    arrivals = max(1, config.rounds - 1)
    return round(one * (WINDOW + arrivals) / arrivals)


def receive(arrival: Arrival) -> dict[str, float]:
    """Learn W and begin the round from own and mean, mixed by it."""
    import torch

    from comigs.data.tokens import random_windows
    from comigs.data.windows import predicted
    from comigs.evaluation.perplexity import token_loss
    from comigs.mixture.adapters import adapter_parameters, load_adapter_tensors
    from comigs.mixture.forward import forward_of
    from comigs.seeds import generator

    model, config, mean = arrival.model, arrival.config, arrival.shared
    named = adapter_parameters(model)
    mixed = {name: named[name] for name in higher(named) if name in mean}
    own = {name: p.detach().clone() for name, p in mixed.items()}
    theirs = {name: mean[name].to(p.device) for name, p in mixed.items()}
    weight = {
        name: arrival.tensors.get(f"{WEIGHT}{name}", torch.ones(p.shape)).to(p.device)
        for name, p in mixed.items()
    }
    first = not any(name.startswith(WEIGHT) for name in arrival.tensors)
    load_adapter_tensors(model, mean)

    @torch.no_grad()
    def mix() -> None:
        for name, parameter in mixed.items():
            parameter.copy_(torch.lerp(own[name], theirs[name], weight[name]))

    def study(windows: Tensor) -> float:
        """Learn from one batch; returns its loss."""
        total = 0.0
        for part in windows.split(config.micro_batch):
            loss = token_loss(model, part, "mean", config.train.loss == "chunked")
            loss = loss * float(predicted(part) / predicted(windows))
            loss.backward()
            total += float(loss.detach())
        for name, parameter in mixed.items():
            gradient = parameter.grad
            if gradient is not None:
                weight[name] = learnt(weight[name], gradient, theirs[name] - own[name])
            parameter.grad = None
        mix()
        return total

    rng = generator(config.seed, arrival.client, arrival.round, "fedala")
    length, count = config.data.seq_len, batches_of(config)
    sample = [
        random_windows(arrival.data.train, config.batch_size, length, rng) for _ in range(count)
    ]
    mix()
    losses: list[float] = []
    for parameter in mixed.values():
        parameter.grad = None  # of the last local step
        parameter.requires_grad_(True)
    with forward_of(model, config.train):
        while not losses or (first and not steady(losses)):
            losses.append(sum(map(study, sample)) / count)
    model.requires_grad_(False)
    arrival.tensors.update({f"{WEIGHT}{name}": w.cpu() for name, w in weight.items()})
    tokens = len(losses) * count * config.batch_size * length
    return {"peer_evaluations": len(losses), "peer_evaluation_tokens": tokens}


def steady(losses: list[float]) -> bool:
    """Whether the passes so far are enough."""
    import torch

    last = torch.tensor(losses[-WINDOW:], dtype=torch.float64)
    return len(losses) >= MOST or (len(losses) > WINDOW and float(last.std(correction=0)) < STEADY)


METHOD = Method(
    name="fedala",
    paper="arXiv 2212.01197",
    summary="every weight takes a learnt share of the mean before a round, in the last layer",
    shares=everything,
    experts=all_generalists,
    router="joint",
    receive=receive,
    looks=looks,
    studies=higher,
    feedback=False,
    accepts=same_experts,
)
