"""PCL, strategy 2: every device weighs its peers' models by trust (arXiv 2404.09753).

W_ij = softmax_j(-PPL(theta_j on D_i^valid)), theta_i <- sum_j W_ij theta_j. Everybody's adapters go
to everybody: n models down and n evaluations per device and round.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from comigs.methods.base import Method, everything, same_experts, unrouted_generalists
from comigs.methods.peers import of_peers

if TYPE_CHECKING:
    from torch import Tensor

    from comigs.methods.arrival import Arrival


def trust(perplexities: Tensor) -> Tensor:
    """One device's weights of its n peers: softmax of -PPL; they sum to 1."""
    return (-perplexities.double()).softmax(0)


def receive(arrival: Arrival) -> dict[str, float]:
    """Evaluate every peer on the device's validation text and mix them by trust."""
    import torch

    from comigs.data.tokens import places
    from comigs.evaluation.perplexity import evaluate
    from comigs.mixture.adapters import load_adapter_tensors

    peers: dict[int, dict[str, Tensor]] = {}
    for name, tensor in arrival.shared.items():
        peer, _, own_name = name.partition("/")
        peers.setdefault(int(peer), {})[own_name] = tensor
    metrics = of_peers(arrival, peers)
    values = []
    for _, tensors in sorted(peers.items()):
        load_adapter_tensors(arrival.model, tensors)
        values.append(evaluate(arrival.model, arrival.data.valid, arrival.config))
    weights = trust(torch.tensor(values, dtype=torch.float64))
    ordered = [tensors for _, tensors in sorted(peers.items())]
    mixed = {
        name: sum(w * peer[name].double() for w, peer in zip(weights, ordered, strict=True)).float()
        for name in ordered[0]
    }
    load_adapter_tensors(arrival.model, mixed)
    return metrics | {
        "peer_evaluations": len(ordered),
        "peer_evaluation_tokens": len(ordered) * places(arrival.data.valid),
    }


METHOD = Method(
    name="pcl",
    paper="arXiv 2404.09753",
    summary="every device mixes everybody's adapters by how well they fit its validation text",
    shares=everything,
    aggregator="gather",
    experts=unrouted_generalists,
    receive=receive,
    tells=True,
    peers=True,
    feedback=False,
    accepts=same_experts,
)
