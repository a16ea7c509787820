"""Ditto: a global model, and one per client that is pulled towards it (arXiv 2012.04221).

The global w is FedAvg's. Client i predicts with v_i, which steps (algorithm 1)

    v_i <- v_i - eta (grad F_i(v_i) + lambda (v_i - w^t))

where w^t is what the server sent for the round. Both are whole models of the shape of `fedavg-moe`,
with attention LoRA and routers of their own. The paper gives either its steps; here, where every
method makes equally many gradient steps, the two take turns, as the two LoRAs of `fdlora` do.

The paper looks for lambda data set by data set. A LoRA's gradients are small, so that a strong pull
drowns them: on own text (5 rounds of the quickstart, validation perplexity) lambda = 1 comes to
129, 0.1 to 102.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from comigs.methods.base import (
    GLOBAL,
    Method,
    Twin,
    all_generalists,
    everything,
    pull,
    same_experts,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

    from comigs.methods.arrival import Arrival
    from comigs.methods.base import Tensors

LAMBDA = 0.1


def penalty(parameters: Mapping[str, nn.Parameter], sent: Tensors) -> Tensor:
    """lambda / 2 ||v - w||^2 over the trained tensors."""
    return pull(LAMBDA, parameters, sent)


def receive(arrival: Arrival) -> dict[str, float]:
    """The mean replaces the global model; the client's own stays."""
    arrival.tensors.update({f"{GLOBAL}{name}": tensor for name, tensor in arrival.shared.items()})
    return {}


METHOD = Method(
    name="ditto",
    paper="arXiv 2012.04221",
    summary="a global model is averaged; every device has its own besides, pulled towards it",
    shares=everything,
    experts=all_generalists,
    router="joint",
    twin=Twin(),
    receive=receive,
    penalty=penalty,
    accepts=same_experts,
)
