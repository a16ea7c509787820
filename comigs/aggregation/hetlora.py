"""HetLoRA: pad to the largest rank, weight by the norm of B A, truncate (arXiv 2401.06432)."""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from comigs.aggregation import Aggregator, Scale, Tensors, Updates
from comigs.aggregation.mean import weighted_mean
from comigs.mixture.ranks import pairs


def sparsity_weights(updates: Updates, weights: Mapping[int, float]) -> dict[int, float]:
    """By client id, ||B_i A_i||_F over all its pairs, times its weight; they sum to 1.

    Where every norm is 0 (no client has trained yet), the weights alone.
    """
    norms = {
        i: math.sqrt(sum(_square(u[a], u[b]) for a, b in pairs(u))) for i, u in updates.items()
    }
    raw = {i: norms[i] * weights[i] for i in updates} if any(norms.values()) else dict(weights)
    total = math.fsum(raw[i] for i in sorted(updates))
    return {i: raw[i] / total for i in updates}


def _square(a: Tensor, b: Tensor) -> float:
    """||B A||_F^2 from the r x r Gram matrices."""
    a, b = a.double(), b.double()
    return max(0.0, ((a @ a.t()) * (b.t() @ b)).sum().item())


def combine(
    updates: Updates, weights: Mapping[int, float], scale: Scale, kept: Tensors
) -> dict[str, Tensor]:
    """Weighted mean of zero-padded A and B; B in the scale of the largest rank."""
    share = sparsity_weights(updates, weights)
    out: dict[str, Tensor] = {}
    for a, b in sorted({pair for update in updates.values() for pair in pairs(update)}):
        holders = {i: u for i, u in updates.items() if a in u}
        largest = max(u[a].shape[0] for u in holders.values())
        padded_a, padded_b = {}, {}
        for i, update in holders.items():
            rank = update[a].shape[0]
            missing = largest - rank
            padded_a[i] = F.pad(update[a], (0, 0, 0, missing))
            padded_b[i] = F.pad(update[b] * (scale(rank) / scale(largest)), (0, missing))
        out[a] = _mean(padded_a, share)
        out[b] = _mean(padded_b, share)
    return out


def _mean(tensors: Mapping[int, Tensor], share: Mapping[int, float]) -> Tensor:
    if any(share[i] > 0 for i in tensors):
        return weighted_mean({i: t for i, t in tensors.items() if share[i] > 0}, share)
    return torch.zeros_like(next(iter(tensors.values())))


def truncate(
    kept: Tensors, shapes: Mapping[str, tuple[int, ...]], scale: Scale, fresh: bool
) -> dict[str, Tensor]:
    """The first r_i components of every pair, in the client's scale; zeros where it has more."""
    out = {}
    for a, b in pairs({name: t for name, t in kept.items() if name in shapes}):
        largest, rank = kept[a].shape[0], shapes[a][0]
        extra = max(0, rank - largest)
        out[a] = F.pad(kept[a][:rank], (0, 0, 0, extra))
        out[b] = F.pad(kept[b][:, :rank] * (scale(largest) / scale(rank)), (0, extra))
    return out


AGGREGATOR = Aggregator(combine, truncate, mixed_ranks=True)
