"""HetLoRA: ranks differ; zero-padding, norm weights and self-pruning (arXiv 2401.06432).

What the server gets and sends is in the scale of its rank, so that s B A means the same delta
on a client of rank 4 and one of rank 16.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from comigs.methods.base import Method, unrouted_generalists
from comigs.mixture.ranks import cut, pairs, rank_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from comigs.methods.arrival import Arrival
    from comigs.methods.base import Tensors

GAMMA = 0.99  # components from floor(gamma r) on may be pruned
PENALTY = 5e-3  # lambda


def first_pruned(rank: int) -> int:
    """floor(gamma r), the rank after pruning; at least 1."""
    return max(1, int(GAMMA * rank))


def penalty(parameters: Mapping[str, nn.Parameter], sent: Tensors) -> Tensor:
    """lambda sum ||A[gamma r:]|| ||B[:, gamma r:]|| over the pairs."""
    import torch

    terms = []
    for a, b in pairs(parameters):
        tail = first_pruned(parameters[a].shape[0])
        # at B = 0 the norm has no gradient: sqrt(x + eps) instead
        squares = (parameters[a][tail:].square().sum(), parameters[b][:, tail:].square().sum())
        terms.append((squares[0] + 1e-12).sqrt() * (squares[1] + 1e-12).sqrt())
    return PENALTY * torch.stack(terms).sum()


def tail_norm(tensors: Tensors, rank: int) -> float:
    """sum ||A[gamma r:]|| ||B[:, gamma r:]|| of the components of a client of rank r."""
    tail = first_pruned(rank)
    return sum(
        float(tensors[a][tail:rank].norm() * tensors[b][:, tail:rank].norm())
        for a, b in pairs(tensors)
    )


def prune(received: Tensors, trained: Tensors) -> int:
    """The client's rank from now on: cut when its tail is below the server's.

    Args:
        received: what the server sent, brought to the rank and scale of what was trained.
    """
    rank = rank_of(trained)
    smaller = bool(received) and tail_norm(trained, rank) < tail_norm(received, rank)
    return first_pruned(rank) if smaller else rank


def receive(arrival: Arrival) -> dict[str, float]:
    """Take the components that the client still has."""
    from comigs.mixture.adapters import adapter_parameters, load_adapter_tensors

    rank = rank_of(adapter_parameters(arrival.model))
    load_adapter_tensors(arrival.model, cut(arrival.shared, rank, arrival.config.experts))
    return {}


METHOD = Method(
    name="hetlora",
    paper="arXiv 2401.06432",
    summary="LoRA of different ranks, zero-padded, weighted by the norm of B A, self-pruned",
    aggregator="hetlora",
    experts=unrouted_generalists,
    receive=receive,
    penalty=penalty,
    prune=prune,
)
