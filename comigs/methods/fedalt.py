"""FedALT: a LoRA of one's own beside the rest of the world's, and a mixer (arXiv 2503.11880).

Each client has an individual LoRA L, which it trains, sends and never has overwritten, and a frozen
one R, the mean of the others' (server: for client k, 1 / (K - 1) sum over m != k of A_m, and of
B_m). A mixer of its own, softmax of a linear map of each token, weighs them; it learns together
with L on training text:

    h = W x + alpha(x) B_L A_L x + (1 - alpha(x)) B_R A_R x

As everywhere here the two are experts, whole MLPs with a LoRA on every linear, and the mixer is the
router of each MLP. Attention has no mixer, hence no R: its LoRA is the client's own and stays. A
client that takes no part in a round counts with what it sent last. Until others have sent something
R is 0. Individual LoRAs start equal on all clients, as everything here that travels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from comigs.config.experts import ExpertsConfig
from comigs.config.settings import RunConfig
from comigs.methods.base import Method, one_of_each, same_experts

if TYPE_CHECKING:
    from comigs.methods.arrival import Arrival

OWN, REST = "generalist_0", "specialist_0"


def receive(arrival: Arrival) -> dict[str, float]:
    """The mean of the others becomes the frozen expert; the client's own stays."""
    from comigs.mixture.adapters import load_adapter_tensors

    rest = {name.replace(f".{OWN}.", f".{REST}."): t for name, t in arrival.shared.items()}
    load_adapter_tensors(arrival.model, rest)
    return {}


def one_of_each_shape(config: RunConfig, experts: Sequence[ExpertsConfig]) -> str | None:
    """There is one LoRA of one's own and one of the rest, of one rank."""
    return one_of_each(config, experts) or same_experts(config, experts)


METHOD = Method(
    name="fedalt",
    paper="arXiv 2503.11880",
    summary="an own expert is mixed, token by token, with a frozen one: the mean of the others'",
    shares=lambda name: ".mlp." in name and f".{OWN}." in name,
    aggregator="others",
    experts=lambda experts: replace(experts, routed=True, top_k=2),
    learns=lambda name: f".{REST}." not in name,
    router="joint",
    receive=receive,
    feedback=False,
    accepts=one_of_each_shape,
)
