"""Weighted mean of each tensor over the clients that hold it (McMahan et al., arXiv 1602.05629)."""

from collections.abc import Mapping

import torch
from torch import Tensor


def aggregate(
    updates: Mapping[int, Mapping[str, Tensor]], weights: Mapping[int, float]
) -> dict[str, Tensor]:
    """Average the clients' tensors.

    Clients are summed in the order of their ids in fp64, so the result does not depend on the
    order of arrival.

    Args:
        updates: by client id, tensors by name; a client may lack a tensor.
        weights: by client id, its weight (> 0); they need not sum to 1.

    Returns:
        The mean of each tensor, in the dtype of the updates.
    """
    names = sorted({name for update in updates.values() for name in update})
    return {name: _mean(name, updates, weights) for name in names}


def _mean(
    name: str, updates: Mapping[int, Mapping[str, Tensor]], weights: Mapping[int, float]
) -> Tensor:
    holders = [client for client in sorted(updates) if name in updates[client]]
    total = sum(weights[client] for client in holders)
    first = updates[holders[0]][name]
    out = torch.zeros(first.shape, dtype=torch.float64)
    for client in holders:
        out += updates[client][name].double() * (weights[client] / total)
    return out.to(first.dtype)
