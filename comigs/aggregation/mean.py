"""Weighted mean of each tensor over the clients that hold it (McMahan et al., arXiv 1602.05629).

Clients with different numbers of experts have routers of different heights. Each row, which belongs
to one expert, is averaged over the clients that have it.
"""

from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor

from comigs.aggregation import Aggregator, Scale, Tensors, Updates


def combine(
    updates: Updates, weights: Mapping[int, float], scale: Scale, kept: Tensors
) -> dict[str, Tensor]:
    """Average the clients' tensors, each over the clients that hold it."""
    names = sorted({name for update in updates.values() for name in update})
    return {
        name: _of_rows(
            {i: u[name] for i, u in updates.items() if name in u}, weights, kept.get(name)
        )
        for name in names
    }


def _of_rows(
    tensors: Mapping[int, Tensor], weights: Mapping[int, float], kept: Tensor | None
) -> Tensor:
    """The mean of each row over the clients that have it; rows that none of them has stay."""
    edges = sorted({0, *(len(tensor) for tensor in tensors.values())})
    parts = [
        weighted_mean({i: t[top:end] for i, t in tensors.items() if len(t) >= end}, weights)
        for top, end in pairwise(edges)
    ]
    if kept is not None and len(kept) > edges[-1]:
        parts.append(kept[edges[-1] :])
    return parts[0] if len(parts) == 1 else torch.cat(parts)


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
