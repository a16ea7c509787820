"""CoBo: who works with whom is learnt from gradients half-way between two (arXiv 2409.05539).

The generalists x_i of all clients minimise, with w_ij in [0, 1],

    sum_i f_i(x_i) + rho / 2 sum_{i<j} w_ij ||x_i - x_j||^2

and w_ij moves by GAMMA <grad f_i(z), grad f_j(z)> at z = (x_i + x_j) / 2, each gradient on its
client's own training text: where both are near their optimum, it moves little. In a round every
client meets one other, drawn from the seed among those whose tensors everybody has: a gradient goes
up beside its tensors, and everybody's go to everybody. Where one of the two takes no part in the
round, or its update does not count, w stays. A round begins from the proximal step of the second
sum, with rho = 1 and all others held,

    x_i <- (x_i + sum_j w_ij x_j) / (1 + sum_j w_ij),

the mean of all where every w is 1, and x_i itself where every w is 0.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from comigs.config.experts import ExpertsConfig
from comigs.config.settings import RunConfig
from comigs.messages.fields import MIDPOINT
from comigs.methods.base import Method, generalists, same_experts
from comigs.methods.peers import of_peers
from comigs.seeds import generator

if TYPE_CHECKING:
    from torch import Tensor

    from comigs.methods.arrival import Arrival

    Tensors = Mapping[str, Tensor]

GAMMA = 0.1
START = 0.5  # of every w
WEIGHT, PARTNER = "weight/", "partner"  # in what the device keeps: w of a peer; who was met


def moved(weight: float, mine: Tensors, theirs: Tensors) -> float:
    """clip(w + GAMMA <g_i, g_j>, 0, 1)."""
    product = sum(float((g.double() * theirs[name].double()).sum()) for name, g in mine.items())
    return min(1.0, max(0.0, weight + GAMMA * product))


def pulled(own: Tensors, peers: Mapping[int, Tensors], weights: Mapping[int, float]) -> Tensors:
    """(x_i + sum_j w_ij x_j) / (1 + sum_j w_ij)."""
    total = 1 + sum(weights[j] for j in peers)

    def mean(name: str, x: Tensor) -> Tensor:
        theirs = sum(weights[j] * peer[name].double() for j, peer in peers.items())
        return ((x.double() + theirs) / total).to(x.dtype)

    return {name: mean(name, x) for name, x in own.items()}


def partner_of(client: int, clients: Sequence[int], seed: int, number: int) -> int | None:
    """Who meets a client in a round: a matching of all, which leaves one out of an odd number."""
    import torch

    rng = generator(seed, 0, number, "cobo")
    order = [clients[i] for i in torch.randperm(len(clients), generator=rng)]
    place = order.index(client) ^ 1
    return order[place] if place < len(order) else None


def receive(arrival: Arrival) -> dict[str, float]:
    """Learn from the last meeting, begin from own and peers, and prepare the next meeting."""
    from comigs.mixture.adapters import adapter_parameters, load_adapter_tensors

    held: dict[int, dict[str, Tensor]] = {}
    for name, tensor in arrival.shared.items():
        sender, _, own_name = name.partition("/")
        held.setdefault(int(sender), {})[own_name] = tensor
    latest = {i: _of(tensors, False) for i, tensors in held.items()}
    gradients = {i: _of(tensors, True) for i, tensors in held.items()}
    me, kept = arrival.client, arrival.kept
    named = adapter_parameters(arrival.model)
    begun = {n: p.detach().to("cpu", copy=True) for n, p in named.items() if generalists(n)}
    mine = latest.pop(me, begun)  # as it was sent, if it ever was
    met = int(kept.pop(PARTNER, -1))
    if gradients.get(met) and _same(gradients.get(me, {}), _of(arrival.tensors, True)):
        weight = kept.get(f"{WEIGHT}{met}", START)
        kept[f"{WEIGHT}{met}"] = moved(weight, gradients[me], gradients[met])
    weights = {j: kept.get(f"{WEIGHT}{j}", START) for j in latest}
    metrics = of_peers(arrival, latest, weights)
    meets = me in held and arrival.round <= arrival.config.rounds
    seed, number = arrival.config.seed, arrival.round
    partner = partner_of(me, sorted(held), seed, number) if meets else None
    if partner is not None:
        half_way = {name: (x + latest[partner][name]) / 2 for name, x in mine.items()}
        load_adapter_tensors(arrival.model, half_way)
        arrival.tensors.update(_gradient(arrival))
        kept[PARTNER] = partner
        metrics |= {"peer_evaluations": 1, "peer_evaluation_tokens": looks(arrival.config)}
    else:
        for name in [name for name in arrival.tensors if name.startswith(MIDPOINT)]:
            del arrival.tensors[name]
    load_adapter_tensors(arrival.model, pulled(mine, latest, weights))
    return metrics


def _of(tensors: Tensors, gradients: bool) -> dict[str, Tensor]:
    """A client's tensors, or its gradients of them."""
    return {
        name.removeprefix(MIDPOINT): tensor
        for name, tensor in tensors.items()
        if name.startswith(MIDPOINT) == gradients
    }


def _same(arrived: Tensors, sent: Tensors) -> bool:
    """Whether the gradient that arrived is that of the last meeting, and not of one before."""
    import torch

    return bool(arrived) and all(torch.equal(g, sent[name]) for name, g in arrived.items())


def _gradient(arrival: Arrival) -> dict[str, Tensor]:
    """On a batch of the client's training text, of its model as it is."""
    from comigs.data.tokens import random_windows
    from comigs.evaluation.gradient import gradients_of

    config = arrival.config
    rng = generator(config.seed, arrival.client, arrival.round, "cobo batch")
    train, length = arrival.data.train, config.data.seq_len
    windows = random_windows(train, config.batch_size, length, rng)
    with gradients_of(arrival.model, config, generalists) as gradient:
        return {f"{MIDPOINT}{name}": g for name, g in gradient(windows).items()}


def looks(config: RunConfig) -> int:
    """One batch before a round."""
    return config.batch_size * config.data.seq_len


def studies(names: Iterable[str]) -> Collection[str]:
    return [name for name in names if generalists(name)]


def besides(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """A gradient of every generalist tensor."""
    return {f"{MIDPOINT}{name}": shape for name, shape in shapes.items()}


def accepts(config: RunConfig, experts: Sequence[ExpertsConfig]) -> str | None:
    """Gradients travel as they are, beside tensors of one shape, and are of one round."""
    if config.payload.codec != "none" or config.payload.down != "none":
        return "payload.codec and payload.down must be none"
    if config.privacy.mechanism != "none" or config.privacy.secure != "none":
        return "privacy.mechanism and privacy.secure must be none"
    if config.server.late != "discard":
        return "server.late must be discard: a late gradient is of a meeting that is over"
    return same_experts(config, experts)


METHOD = Method(
    name="cobo",
    paper="arXiv 2409.05539",
    summary="generalists are pulled to those of peers whose gradients agree half-way between them",
    aggregator="meetings",
    receive=receive,
    tells=True,
    besides=besides,
    looks=looks,
    studies=studies,
    feedback=False,
    accepts=accepts,
)
