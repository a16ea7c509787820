"""MR-MTL: one personal model per client, pulled towards the mean of all (arXiv 2206.07902).

Client i minimises, in every round t,

    F_i(theta_i) + lambda / 2 ||theta_i - mean_j theta_j||^2

where the mean is that of the models which took part in round t - 1, and of the common start in the
first round. The mean is never copied into theta_i: lambda = 0 is `local-moe`, and from lambda to
infinity it is `fedavg-moe`, whose layout and joint router it has.

The paper looks for lambda data set by data set. A LoRA's gradients are small, so that a strong pull
drowns them: on own text (5 rounds of the quickstart, validation perplexity) lambda = 1 comes to
114, 0.1 to 66, and 0 to 53.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from comigs.methods.base import Method, all_generalists, everything, pull, same_experts

if TYPE_CHECKING:
    from torch import Tensor, nn

    from comigs.methods.arrival import Arrival
    from comigs.methods.base import Tensors

LAMBDA = 0.1


def penalty(parameters: Mapping[str, nn.Parameter], sent: Tensors) -> Tensor:
    """lambda / 2 ||theta - mean||^2 over the trained tensors."""
    return pull(LAMBDA, parameters, sent)


def receive(arrival: Arrival) -> dict[str, float]:
    """Keep the client's own tensors; the mean is for the penalty alone."""
    return {}


METHOD = Method(
    name="mr-mtl",
    paper="arXiv 2206.07902",
    summary="every device keeps a model of its own, which is pulled towards the mean of all",
    shares=everything,
    experts=all_generalists,
    router="joint",
    receive=receive,
    feedback=False,
    penalty=penalty,
    accepts=same_experts,
)
