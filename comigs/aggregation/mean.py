"""Weighted mean of each tensor over the clients that hold it (McMahan et al., arXiv 1602.05629)."""

from collections.abc import Mapping

import torch
from torch import Tensor

from comigs.aggregation import Aggregator, Scale, Tensors, Updates


def combine(
    updates: Updates, weights: Mapping[int, float], scale: Scale, kept: Tensors
) -> dict[str, Tensor]:
    """Average the clients' tensors, each over the clients that hold it."""
    names = sorted({name for update in updates.values() for name in update})
    return {
        name: weighted_mean({i: u[name] for i, u in updates.items() if name in u}, weights)
        for name in names
    }


def weighted_mean(tensors: Mapping[int, Tensor], weights: Mapping[int, float]) -> Tensor:
    """Weighted mean of one tensor of each client, in its dtype.

    Clients are summed in the order of their ids in fp64, so the result does not depend on the
    order of arrival.
    """
    clients = sorted(tensors)
    total = sum(weights[client] for client in clients)
    first = tensors[clients[0]]
    out = torch.zeros(first.shape, dtype=torch.float64)
    for client in clients:
        out += tensors[client].double() * (weights[client] / total)
    return out.to(first.dtype)


AGGREGATOR = Aggregator(combine, averages=True)
